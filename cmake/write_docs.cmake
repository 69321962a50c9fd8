# cmake -DKEYHOLE=<program> -DOUT=<folder> -P write_docs.cmake: man/*.1 and completion/* of OUT.

cmake_minimum_required(VERSION 3.20)

file(REMOVE_RECURSE ${OUT}/man ${OUT}/completion)
file(MAKE_DIRECTORY ${OUT}/man ${OUT}/completion)
execute_process(COMMAND ${KEYHOLE} help --verbs OUTPUT_VARIABLE verbs COMMAND_ERROR_IS_FATAL ANY)
string(REGEX REPLACE "\n+" ";" verbs "${verbs}")

execute_process(COMMAND ${KEYHOLE} help --man OUTPUT_FILE ${OUT}/man/keyhole.1 COMMAND_ERROR_IS_FATAL ANY)
foreach(verb IN LISTS verbs)
    if(verb)
        string(REPLACE " " "-" page "${verb}")
        string(REPLACE " " ";" words "${verb}")
        execute_process(COMMAND ${KEYHOLE} help --man ${words}
            OUTPUT_FILE ${OUT}/man/keyhole-${page}.1 COMMAND_ERROR_IS_FATAL ANY)
    endif()
endforeach()
foreach(pair bash:keyhole.bash zsh:_keyhole fish:keyhole.fish)
    string(REPLACE ":" ";" pair ${pair})
    list(GET pair 0 shell)
    list(GET pair 1 name)
    execute_process(COMMAND ${KEYHOLE} completion ${shell}
        OUTPUT_FILE ${OUT}/completion/${name} COMMAND_ERROR_IS_FATAL ANY)
endforeach()
