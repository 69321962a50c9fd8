# scripts/lint sees each kind of offence, where it is, and lets clean files pass.
. tests/cli/lib.sh
tree=$scratch/tree
mkdir -p "$tree"/{scripts,src/base,src/kern,src/ops,src/gen,src/cli,include/keyhole,examples,web/dist,web/src}
cp scripts/lint scripts/layers.txt "$tree/scripts/"
cp .clang-format "$tree/"

put() { # put <path>: a C file with an opening comment and the text of standard input
    { echo "/* What it is for. */" && cat; } >"$tree/$1"
}
put src/base/clean.c <<<'#include <stddef.h>

/* printf( in a comment and "exit(" in a string are harmless. */
const char *const kh_clean = "exit(1) malloc(2)";'
put src/base/clean.h <<<'extern const char *const kh_clean;'
echo '/* What it is for. */' >"$tree/web/src/clean.ts"
printf 'TO''DO in a build   \n' >"$tree/web/dist/report.html"
put src/cli/main.c <<<'#include "base/clean.h"

#include <stdio.h>
int main(void)
{
    return puts(kh_clean) < 0;
}'
runs 0 "$tree/scripts/lint"
has "$out" ""
lacks "$out" :

put src/base/up.c <<<'#include "kern/kern.h"'
put src/kern/kern.h <<<'int kh_kern(void);'
put src/ops/side.c <<<'#include "side.h"
#include "gen/none.h"'
put src/cli/deep.c <<<'#include "kern/kern.h"'
put src/gen/calls.c <<<'void kh_f(void);
void kh_f(void)
{
    printf("x");
    exit(1);
    char *p = malloc(1);
    free(p);
    a->free(p);
    kh_free(p);
    strcpy(p, p);
#pragma omp parallel
    p = 0;
}'
put src/gen/simd.c <<<'#include <immintrin.h>
#include <oneapi/dnnl/dnnl.h>'
put src/gen/clean.h <<<'int kh_twice;'
put src/gen/marks.c <<<"/* TO""DO */
/* see /ro""ot/x */
int   kh_badly_formatted ;"
put include/keyhole/public.h <<<'#include "base/clean.h"
KH_API int kh_set(int x, bool on);'
put examples/example.c <<<'#include "base/clean.h"'
echo 'int kh_bare;' >"$tree/src/gen/bare.c"
{ echo '/*' && yes 'word' | head -45 && echo '*/'; } >"$tree/src/gen/essay.c"
{ printf 'int kh_long(int x)\n{\n' && yes '    x++;' | head -70 && printf '    return x;\n}\n'; } | put src/gen/long.c
yes 'extern int kh_many;' | head -801 | put src/gen/many.h
echo 'export const bare = 1; ' >"$tree/web/src/bare.ts"
{ echo '/* What it is for. */' && yes '.a {}' | head -500; } >"$tree/web/src/many.css"
printf '{\n  "resolved": "somewhere"\n}\n' >"$tree/web/package-lock.json"

runs 1 "$tree/scripts/lint"
while read -r line; do has "$out" "$line"; done <<'END'
src/base/up.c:2: base (layer 0) may not include kern (layer 2)
src/ops/side.c:2: "side.h" is not written from src/
src/ops/side.c:3: "gen/none.h" is not written from src/
src/cli/deep.c:2: cli (layer 13) may not include kern (layer 2)
src/gen/calls.c:5: printf:
src/gen/calls.c:6: exit:
src/gen/calls.c:7: malloc:
src/gen/calls.c:8: free:
src/gen/calls.c:11: strcpy:
src/gen/calls.c:12: #pragma omp:
src/gen/simd.c:2: #include <immintrin.h>:
src/gen/simd.c:1: oneDNN
src/gen/clean.h:1: src/base/clean.h has the same file name
src/gen/marks.c:2: marks of unfinished work
src/gen/marks.c:3: a path of somebody's machine
src/gen/marks.c:4: not as clang-format writes it
include/keyhole/public.h:2: "base/clean.h" is not public
include/keyhole/public.h:3: KH_API int kh_set: a public function takes no bare boolean
examples/example.c:2: "base/clean.h" is not public
src/gen/bare.c:1: a .c file opens with a block comment
src/gen/essay.c:1: the opening comment has 47 lines
src/gen/long.c:2: a function of 74 lines
src/gen/many.h:800: 802 lines
web/src/bare.ts:1: a file of web/ opens with
web/src/bare.ts:1: trailing white space
web/src/many.css:500: 501 lines
web/package-lock.json:2: the lock file names no registry's host
END
for line in 'web/dist' 'clean.ts' 'calls.c:9:' 'calls.c:10:' 'src/cli/main.c' 'src/base/clean.c'; do lacks "$out" "$line"; done
finish
