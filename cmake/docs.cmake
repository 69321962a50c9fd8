# Manual pages and shell completion, written by the program itself from its option tables into
# build/man and build/completion. cmake/install.cmake installs them.

if(TARGET keyhole_cli)
    add_custom_command(OUTPUT ${PROJECT_BINARY_DIR}/docs.stamp
        COMMAND ${CMAKE_COMMAND} -DKEYHOLE=$<TARGET_FILE:keyhole_cli> -DOUT=${PROJECT_BINARY_DIR}
            -P ${PROJECT_SOURCE_DIR}/cmake/write_docs.cmake
        COMMAND ${CMAKE_COMMAND} -E touch ${PROJECT_BINARY_DIR}/docs.stamp
        DEPENDS keyhole_cli ${PROJECT_SOURCE_DIR}/cmake/write_docs.cmake VERBATIM
        COMMENT "Writing manual pages and completion")
    add_custom_target(kh_docs ALL DEPENDS ${PROJECT_BINARY_DIR}/docs.stamp)
endif()
