# build/generated/kh_version.h: KH_VERSION_STRING and KH_COMMIT. The target kh_version looks at the
# commit in every build and writes the header only when it changed.

set(KH_GENERATED_DIR ${PROJECT_BINARY_DIR}/generated)
set(kh_version_command ${CMAKE_COMMAND} -DSOURCE=${PROJECT_SOURCE_DIR} -DVERSION=${PROJECT_VERSION}
    -DOUT=${KH_GENERATED_DIR}/kh_version.h -P ${PROJECT_SOURCE_DIR}/cmake/write_version.cmake)
execute_process(COMMAND ${kh_version_command} COMMAND_ERROR_IS_FATAL ANY)
add_custom_target(kh_version COMMAND ${kh_version_command}
    BYPRODUCTS ${KH_GENERATED_DIR}/kh_version.h VERBATIM COMMENT "")
