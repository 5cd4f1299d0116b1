# What cmake --install puts where: both libraries, the headers, the command, hugepool.pc and the CMake package.
include(CMakePackageConfigHelpers)

# Relative to the file itself, so that an installed tree can be moved (and --prefix works).
if(IS_ABSOLUTE ${CMAKE_INSTALL_LIBDIR})
	set(hugepool_pc_prefix ${CMAKE_INSTALL_PREFIX})
	set(hugepool_pc_libdir ${CMAKE_INSTALL_LIBDIR})
else()
	file(RELATIVE_PATH up /p/${CMAKE_INSTALL_LIBDIR}/pkgconfig /p)
	string(REGEX REPLACE "/$" "" up "${up}")
	set(hugepool_pc_prefix "\${pcfiledir}/${up}")
	set(hugepool_pc_libdir "\${prefix}/${CMAKE_INSTALL_LIBDIR}")
endif()
configure_file(${PROJECT_SOURCE_DIR}/cmake/hugepool.pc.in ${PROJECT_BINARY_DIR}/hugepool.pc @ONLY)
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/hugepool-config.cmake.in
	${PROJECT_BINARY_DIR}/hugepool-config.cmake INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/hugepool)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/hugepool-config-version.cmake COMPATIBILITY SameMinorVersion)

install(TARGETS hugepool_shared hugepool_static EXPORT hugepool
	LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(TARGET hugepool_malloc)
	install(TARGETS hugepool_malloc LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
endif()
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/hugepool DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
	FILES_MATCHING PATTERN "*.h")
install(EXPORT hugepool NAMESPACE hugepool:: FILE hugepool-targets.cmake
	DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/hugepool)
install(FILES ${PROJECT_BINARY_DIR}/hugepool-config.cmake ${PROJECT_BINARY_DIR}/hugepool-config-version.cmake
	DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/hugepool)
install(FILES ${PROJECT_BINARY_DIR}/hugepool.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
if(TARGET hugepool)
	install(TARGETS hugepool RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
