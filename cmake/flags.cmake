# Compiler flags, gathered in the interface target kh_flags, and flags per instruction set.

add_library(kh_flags INTERFACE)
add_library(kh_sanitize INTERFACE)

target_compile_definitions(kh_flags INTERFACE _GNU_SOURCE)
target_include_directories(kh_flags INTERFACE
    ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src ${PROJECT_BINARY_DIR}/generated)
# Contraction stays off so that every compiler and instruction set computes the same values;
# the other two only free the compiler from errno and from floating-point traps.
target_compile_options(kh_flags INTERFACE -g
    -Wall -Wextra -Wshadow -Wundef -Wvla -Wmissing-prototypes -Wstrict-prototypes
    -Wdouble-promotion -Wwrite-strings
    -ffp-contract=off -fno-math-errno -fno-trapping-math)
if(KH_WERROR)
    target_compile_options(kh_flags INTERFACE -Werror)
endif()

if(KH_SANITIZE)
    string(REPLACE "," ";" kh_sanitizers "${KH_SANITIZE}")
    foreach(name IN LISTS kh_sanitizers)
        if(NOT name MATCHES "^(address|undefined|thread)$")
            message(FATAL_ERROR "KH_SANITIZE=${KH_SANITIZE}: ${name} is none of address, undefined, thread.")
        endif()
    endforeach()
    string(REPLACE ";" "," kh_sanitizers "${kh_sanitizers}")
    target_compile_options(kh_flags INTERFACE -fsanitize=${kh_sanitizers} -fno-omit-frame-pointer
        -fno-sanitize-recover=all -O1)
    target_link_options(kh_sanitize INTERFACE -fsanitize=${kh_sanitizers})
endif()
if(KH_FUZZ)
    if(NOT CMAKE_C_COMPILER_ID MATCHES "Clang")
        message(FATAL_ERROR "KH_FUZZ needs clang: configure with -DCMAKE_C_COMPILER=clang.")
    endif()
    target_compile_options(kh_flags INTERFACE -fsanitize=fuzzer-no-link)
    target_link_options(kh_sanitize INTERFACE -fsanitize=fuzzer-no-link)
endif()

# The instruction set of a file is the suffix of its name. The dispatcher decides at run time
# what is called, so only these files may be compiled beyond the baseline.
set(kh_isa_avx2 -mavx2 -mfma -mf16c -mbmi -mbmi2)
set(kh_isa_avxvnni -mavx2 -mfma -mf16c -mbmi -mbmi2 -mavxvnni)
set(kh_isa_avx512 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mf16c -mbmi -mbmi2)
set(kh_isa_avx512vnni ${kh_isa_avx512} -mavx512vnni)

if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
    set(KH_X86 ON)
    target_compile_definitions(kh_flags INTERFACE KH_X86)
else()
    set(KH_X86 OFF)
endif()

# kh_isa_flags(<list variable>): sets the flags of the files of an instruction set, or takes them
# out of the list on another processor.
function(kh_isa_flags list)
    foreach(isa avx2 avxvnni avx512 avx512vnni)
        set(files ${${list}})
        list(FILTER files INCLUDE REGEX "_${isa}\\.c$")
        if(NOT files)
            continue()
        endif()
        if(KH_X86)
            set_source_files_properties(${files} PROPERTIES COMPILE_OPTIONS "${kh_isa_${isa}}")
        else()
            list(REMOVE_ITEM ${list} ${files})
        endif()
    endforeach()
    set(${list} ${${list}} PARENT_SCOPE)
endfunction()
