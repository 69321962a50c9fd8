# What is installed, and the Debian package made of it.

include(CMakePackageConfigHelpers)
set(CMAKE_SKIP_INSTALL_ALL_DEPENDENCY ON) # installing and packing take what is built
set(kh_cmake_dir ${CMAKE_INSTALL_LIBDIR}/cmake/keyhole)

install(TARGETS keyhole EXPORT keyholeTargets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES ${kh_public_headers} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/keyhole)
install(EXPORT keyholeTargets NAMESPACE keyhole:: DESTINATION ${kh_cmake_dir})
if(TARGET keyhole_cli)
    install(TARGETS keyhole_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()

configure_package_config_file(cmake/keyholeConfig.cmake.in ${PROJECT_BINARY_DIR}/keyholeConfig.cmake
    INSTALL_DESTINATION ${kh_cmake_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/keyholeConfigVersion.cmake
    COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/keyholeConfig.cmake ${PROJECT_BINARY_DIR}/keyholeConfigVersion.cmake
    DESTINATION ${kh_cmake_dir})

# The prefix is found from the place of the file, so an installed tree can be moved.
file(RELATIVE_PATH KH_PC_PREFIX /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
configure_file(cmake/keyhole.pc.in ${PROJECT_BINARY_DIR}/keyhole.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/keyhole.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

# Manual pages and completions are written into the build folder from the option tables.
install(DIRECTORY ${PROJECT_BINARY_DIR}/man/ DESTINATION ${CMAKE_INSTALL_MANDIR}/man1
    OPTIONAL FILES_MATCHING PATTERN "*.1")
install(FILES ${PROJECT_BINARY_DIR}/completion/keyhole.bash OPTIONAL
    DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME keyhole)
install(FILES ${PROJECT_BINARY_DIR}/completion/_keyhole OPTIONAL
    DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/vendor-completions)
install(FILES ${PROJECT_BINARY_DIR}/completion/keyhole.fish OPTIONAL
    DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} RENAME copyright)
# What the libraries in the pages, which are in the binary, ask for.
install(FILES web/NOTICE DESTINATION ${CMAKE_INSTALL_DOCDIR})

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME keyhole)
set(CPACK_PACKAGE_CONTACT "The keyhole authors <keyhole@example.org>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "${PROJECT_DESCRIPTION}")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS ${PROJECT_BINARY_DIR})
include(CPack)
