# find_package(whimbrel): the targets whimbrel::whimbrel (shared, or static where there is only that) and whimbrel::whimbrel_static.
# Found relative to this file, so that the folder it was installed into may be moved.
get_filename_component(_whimbrel_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
find_path(whimbrel_INCLUDE_DIR whimbrel.h HINTS "${_whimbrel_prefix}/include" NO_DEFAULT_PATH)
find_library(whimbrel_SHARED_LIBRARY NAMES whimbrel HINTS "${_whimbrel_prefix}/lib" "${_whimbrel_prefix}/lib64"
  "${_whimbrel_prefix}/lib/${CMAKE_LIBRARY_ARCHITECTURE}" NO_DEFAULT_PATH)
find_library(whimbrel_STATIC_LIBRARY NAMES "${CMAKE_STATIC_LIBRARY_PREFIX}whimbrel${CMAKE_STATIC_LIBRARY_SUFFIX}"
  HINTS "${_whimbrel_prefix}/lib" "${_whimbrel_prefix}/lib64" "${_whimbrel_prefix}/lib/${CMAKE_LIBRARY_ARCHITECTURE}" NO_DEFAULT_PATH)
include(CMakeFindDependencyMacro)
set(THREADS_PREFER_PTHREAD_FLAG ON)
find_dependency(Threads)

if(NOT whimbrel_INCLUDE_DIR OR NOT (whimbrel_SHARED_LIBRARY OR whimbrel_STATIC_LIBRARY))
  set(whimbrel_FOUND FALSE)
  set(whimbrel_NOT_FOUND_MESSAGE "there is no whimbrel.h or no library below ${_whimbrel_prefix}")
  return()
endif()

if(whimbrel_SHARED_LIBRARY AND NOT TARGET whimbrel::whimbrel)
  add_library(whimbrel::whimbrel UNKNOWN IMPORTED)
  set_target_properties(whimbrel::whimbrel PROPERTIES IMPORTED_LOCATION "${whimbrel_SHARED_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES "${whimbrel_INCLUDE_DIR}")
  if(whimbrel_SHARED_LIBRARY STREQUAL whimbrel_STATIC_LIBRARY)
    set_target_properties(whimbrel::whimbrel PROPERTIES INTERFACE_LINK_LIBRARIES "Threads::Threads;${CMAKE_DL_LIBS};m")
  endif()
endif()
if(whimbrel_STATIC_LIBRARY AND NOT TARGET whimbrel::whimbrel_static)
  add_library(whimbrel::whimbrel_static STATIC IMPORTED)
  set_target_properties(whimbrel::whimbrel_static PROPERTIES IMPORTED_LOCATION "${whimbrel_STATIC_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES "${whimbrel_INCLUDE_DIR}"
    INTERFACE_LINK_LIBRARIES "Threads::Threads;${CMAKE_DL_LIBS};m")
endif()
