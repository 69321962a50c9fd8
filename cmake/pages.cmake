# The pages of the program: web/dist/*.html, built from web/ and committed (CONTRIBUTING.md), become
# part of the binary here, without Node. kh_embed_page(<page> <header> <variable> <list>) appends to the list of
# sources; the header declares the variable. A page that is not there is a line that says so.

function(kh_embed_page page header name list)
    set(in ${PROJECT_SOURCE_DIR}/web/dist/${page}.html)
    if(NOT EXISTS ${in})
        set(in ${PROJECT_SOURCE_DIR}/cmake/no_page.html)
    endif()
    set(out ${KH_GENERATED_DIR}/kh_page_${page}.c)
    add_custom_command(OUTPUT ${out}
        COMMAND ${CMAKE_COMMAND} -DIN=${in} -DOUT=${out} -DHEADER=${header} -DNAME=${name}
            -P ${PROJECT_SOURCE_DIR}/cmake/embed.cmake
        DEPENDS ${in} ${PROJECT_SOURCE_DIR}/cmake/embed.cmake VERBATIM
        COMMENT "Embedding web/dist/${page}.html")
    set(${list} ${${list}} ${out} PARENT_SCOPE)
endfunction()
