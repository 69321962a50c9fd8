# The pages of the program: web/dist/*.html, built from web/ and committed (CONTRIBUTING.md), become
# part of the binary here, without Node. kh_embed_page(<page>) appends to kh_cli_sources.

function(kh_embed_page page)
    set(in ${PROJECT_SOURCE_DIR}/web/dist/${page}.html)
    set(out ${KH_GENERATED_DIR}/kh_page_${page}.c)
    add_custom_command(OUTPUT ${out}
        COMMAND ${CMAKE_COMMAND} -DIN=${in} -DOUT=${out} -DHEADER=cli/pages.h -DNAME=cli_page_${page}
            -P ${PROJECT_SOURCE_DIR}/cmake/embed.cmake
        DEPENDS ${in} ${PROJECT_SOURCE_DIR}/cmake/embed.cmake VERBATIM
        COMMENT "Embedding web/dist/${page}.html")
    set(kh_cli_sources ${kh_cli_sources} ${out} PARENT_SCOPE)
endfunction()
