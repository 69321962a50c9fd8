# The libraries that keyhole links, gathered in the interface target kh_libs.
# A missing one ends the configuration with one sentence that names its Debian package.

add_library(kh_libs INTERFACE)

function(kh_missing what package)
    message(FATAL_ERROR "${what} was not found: install the Debian package ${package} (scripts/setup does it).")
endfunction()

find_package(PkgConfig QUIET)
if(NOT PKG_CONFIG_FOUND)
    kh_missing("pkg-config" "pkg-config")
endif()

# kh_pkg(<prefix> <pkg-config name> <name in a sentence> <Debian package>)
function(kh_pkg prefix module what package)
    pkg_check_modules(${prefix} QUIET IMPORTED_TARGET ${module})
    if(NOT ${prefix}_FOUND)
        kh_missing("${what}" "${package}")
    endif()
    target_link_libraries(kh_libs INTERFACE PkgConfig::${prefix})
    message(STATUS "${what} ${${prefix}_VERSION}")
endfunction()

kh_pkg(KH_JANSSON jansson "jansson" "libjansson-dev")
kh_pkg(KH_PCRE2 libpcre2-8 "PCRE2 (8 bit)" "libpcre2-dev")
kh_pkg(KH_UTF8PROC libutf8proc "utf8proc" "libutf8proc-dev")

# Downloads are optional: libcurl, and OpenSSL's libcrypto for checksums.
option(KH_CURL "keyhole pull and -hf fetch models through libcurl" ON)
set(KH_HAVE_CURL OFF)
if(KH_CURL)
    pkg_check_modules(KH_CURL_PKG QUIET IMPORTED_TARGET libcurl>=7.62)
    pkg_check_modules(KH_CRYPTO_PKG QUIET IMPORTED_TARGET libcrypto>=1.1)
    if(KH_CURL_PKG_FOUND AND KH_CRYPTO_PKG_FOUND)
        set(KH_HAVE_CURL ON)
        target_link_libraries(kh_libs INTERFACE PkgConfig::KH_CURL_PKG PkgConfig::KH_CRYPTO_PKG)
        message(STATUS "libcurl ${KH_CURL_PKG_VERSION}, libcrypto ${KH_CRYPTO_PKG_VERSION}")
    endif()
endif()
if(NOT KH_HAVE_CURL)
    message(STATUS "No downloads: keyhole pull and -hf will use the cache only (install the Debian packages "
        "libcurl4-openssl-dev and libssl-dev; scripts/setup does it)")
endif()

# oneDNN ships no pkg-config file.
find_path(KH_DNNL_INCLUDE oneapi/dnnl/dnnl.h)
find_library(KH_DNNL_LIBRARY dnnl)
if(NOT KH_DNNL_INCLUDE OR NOT KH_DNNL_LIBRARY)
    kh_missing("oneDNN (oneapi/dnnl/dnnl.h, libdnnl)" "libdnnl-dev")
endif()
mark_as_advanced(KH_DNNL_INCLUDE KH_DNNL_LIBRARY)
target_link_libraries(kh_libs INTERFACE ${KH_DNNL_LIBRARY})
if(NOT KH_DNNL_INCLUDE STREQUAL "/usr/include")
    target_include_directories(kh_libs SYSTEM INTERFACE ${KH_DNNL_INCLUDE})
endif()
message(STATUS "oneDNN ${KH_DNNL_LIBRARY}")

find_package(OpenMP QUIET COMPONENTS C)
if(NOT OpenMP_C_FOUND)
    if(CMAKE_C_COMPILER_ID MATCHES "Clang")
        kh_missing("OpenMP for clang" "libomp-dev")
    else()
        kh_missing("OpenMP" "build-essential")
    endif()
endif()
set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)
target_link_libraries(kh_libs INTERFACE OpenMP::OpenMP_C Threads::Threads m)

if(KH_TESTS)
    pkg_check_modules(KH_CMOCKA QUIET IMPORTED_TARGET cmocka)
    if(NOT KH_CMOCKA_FOUND)
        message(STATUS "cmocka was not found, so the tests are not built: install the Debian package "
            "libcmocka-dev (scripts/setup --tests does it)")
        set(KH_TESTS OFF)
    endif()
endif()
