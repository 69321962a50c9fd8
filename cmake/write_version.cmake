# cmake -DSOURCE=... -DVERSION=... -DOUT=... -P write_version.cmake

cmake_minimum_required(VERSION 3.20)

set(commit unknown)
if(EXISTS ${SOURCE}/.git)
    execute_process(COMMAND git -C ${SOURCE} rev-parse --short HEAD
        OUTPUT_VARIABLE found OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
    if(NOT failed)
        set(commit ${found})
    endif()
endif()
file(CONFIGURE OUTPUT ${OUT} @ONLY CONTENT
"/* Written by the build. */
#define KH_VERSION_STRING \"@VERSION@\"
#define KH_COMMIT \"@commit@\"
")
