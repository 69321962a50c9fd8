# The installed tree is complete: an example compiles and runs against it, found by pkg-config and
# found by CMake, and the Debian package holds what it should.
. tests/cli/lib.sh
build=${KEYHOLE_BUILD:?KEYHOLE_BUILD names the build folder}
unset DESTDIR

grep -q '^KH_SANITIZE:STRING=..*' "$build/CMakeCache.txt" && skip "a build with sanitizers is not installed"
grep -q '^KH_FUZZ:BOOL=ON' "$build/CMakeCache.txt" && skip "a fuzzing build is not installed"

prefix=$scratch/prefix
runs 0 cmake --install "$build" --prefix "$prefix"
check "the binary is installed" test -x "$prefix/bin/keyhole"
for header in include/keyhole/*.h; do
    check "$header is installed" cmp -s "$header" "$prefix/$header"
done

pc=$(find "$prefix" -name keyhole.pc)
check "keyhole.pc is installed" test -f "$pc"
libdir=$(dirname "$(dirname "$pc")")
export PKG_CONFIG_PATH=$libdir/pkgconfig LD_LIBRARY_PATH=$libdir

# An example opts into being run here by a line `// run: ARGUMENTS`.
examples=0
for source in examples/*.c; do
    [ -e "$source" ] || break
    name=$(basename "$source" .c)
    runs 0 sh -c "cc -std=c11 -Wall -Wextra -Werror -o '$scratch/$name' '$source' \$(pkg-config --cflags --libs keyhole) -lm"
    if arguments=$(grep -m1 '^// run:' "$source"); then
        arguments=${arguments#// run:}
        case $arguments in *MODEL*) need_model smollm2 && arguments=${arguments//MODEL/$model} ;; esac
        eval "words=($arguments)"
        runs 0 "$scratch/$name" "${words[@]}"
        examples=$((examples + 1))
    fi
done

# A header is complete in itself, for C and for C++.
for header in include/keyhole/*.h; do
    echo "#include <keyhole/$(basename "$header")>" >"$scratch/one.c"
    runs 0 sh -c "cc -std=c11 -pedantic -Werror -fsyntax-only \$(pkg-config --cflags keyhole) '$scratch/one.c'"
    runs 0 sh -c "c++ -x c++ -fsyntax-only \$(pkg-config --cflags keyhole) '$scratch/one.c'"
done

mkdir "$scratch/user"
cat >"$scratch/user/CMakeLists.txt" <<'END'
cmake_minimum_required(VERSION 3.20)
project(user LANGUAGES C)
find_package(keyhole 0.1 REQUIRED)
add_executable(user user.c)
target_link_libraries(user PRIVATE keyhole::keyhole)
END
cat >"$scratch/user/user.c" <<'END'
#include <keyhole/status.h>
#include <stdio.h>
int main(void)
{
    return puts(kh_status_text(KH_OK)) < 0;
}
END
runs 0 cmake -S "$scratch/user" -B "$scratch/user/build" -DCMAKE_PREFIX_PATH="$prefix"
runs 0 cmake --build "$scratch/user/build"
runs 0 "$scratch/user/build/user"
has "$out" success

# Nothing but the public functions is visible.
leaked=$(nm -D --defined-only "$libdir/libkeyhole.so" | awk '{print $3}' | grep -v '^kh_' | grep -v '^_' | head -5)
check "only kh_ names are exported (found: $leaked)" test -z "$leaked"

if command -v dpkg-deb >/dev/null && command -v dpkg-shlibdeps >/dev/null; then
    runs 0 cpack --config "$build/CPackConfig.cmake" -B "$scratch/package"
    deb=$(find "$scratch/package" -maxdepth 1 -name '*.deb')
    check "cpack makes a .deb" test -f "$deb"
    content=$(dpkg-deb --contents "$deb" 2>&1)
    for path in ./usr/bin/keyhole libkeyhole.so.0 ./usr/include/keyhole/status.h pkgconfig/keyhole.pc \
        keyholeConfig.cmake copyright NOTICE; do
        has "$content" "$path"
    done
    has "$(dpkg-deb --field "$deb" Depends)" libgomp1
else
    echo "note: dpkg is missing, so the Debian package is not checked"
fi
[ "$examples" -gt 0 ] || [ ! -e examples ] || bad "no example in examples/ has a line '// run: ARGUMENTS'"
finish
