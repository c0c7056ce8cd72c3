# Enables C++ where there is a compiler for the kernels. Where there is none, `compiler_error` says in
# one line what to install.
include(CheckLanguage)

set(oldest_GNU 12)
set(oldest_Clang 13)
set(oldest_AppleClang 13)
set(wanted "g++ ${oldest_GNU} or clang++ ${oldest_Clang}, or a later one")
set(compiler_error "")

check_language(CXX)
if(NOT CMAKE_CXX_COMPILER)
  unset(CMAKE_CXX_COMPILER CACHE)  # so that the next try looks again
  if("$ENV{CXX}" STREQUAL "")
    set(compiler_error "adder-onnx needs a C++ compiler: install ${wanted}")
  else()
    string(CONCAT compiler_error "adder-onnx needs a C++ compiler, and CXX=$ENV{CXX} does not work: "
                                 "install ${wanted}, and set CXX to it")
  endif()
  return()
endif()

enable_language(CXX)
set(oldest "${oldest_${CMAKE_CXX_COMPILER_ID}}")
if("${oldest}" STREQUAL "" OR CMAKE_CXX_COMPILER_VERSION VERSION_LESS "${oldest}")
  string(STRIP "${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}" found)
  if(NOT found)
    set(found "of an unknown kind")
  endif()
  string(CONCAT compiler_error "adder-onnx needs ${wanted}, and ${CMAKE_CXX_COMPILER} is ${found}: "
                               "set CXX to one")
elseif(CMAKE_SYSTEM_NAME STREQUAL "Windows" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU"
       AND NOT ADDER_ONNX_NATIVE_TESTS)
  # In what it makes for Windows, thread_local objects outlive their memory: GCC's bug 80816.
  set(compiler_error "adder-onnx needs clang-cl on Windows, not GCC: set CXX to it")
endif()
