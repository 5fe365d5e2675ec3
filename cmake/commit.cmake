# Writes OUTPUT, a header that defines HETERO_COMMIT as the commit of the source tree SOURCE: "1a2b3c4", with "-dirty"
# where files differ from it, "unknown" outside a git checkout. An unchanged header keeps its time.
cmake_minimum_required(VERSION 3.18)
find_package(Git QUIET)
set(commit "")
if(Git_FOUND)
  execute_process(COMMAND ${GIT_EXECUTABLE} -C ${SOURCE} describe --always --dirty --exclude=*
    OUTPUT_VARIABLE commit ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)
endif()
if(commit STREQUAL "")
  set(commit unknown)
endif()
file(CONFIGURE OUTPUT ${OUTPUT} CONTENT "#define HETERO_COMMIT \"@commit@\"\n" @ONLY)
