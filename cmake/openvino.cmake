# Checks src/device/npu/openvino_api.h against OpenVINO's own C headers where a wheel is found (nothing links against it).
# -DHETERO_OPENVINO_INCLUDE=DIR names the folder that holds openvino/c; else Python environments are searched.
set(openvino_hints $ENV{VIRTUAL_ENV} ${CMAKE_CURRENT_SOURCE_DIR}/.venv)
set(openvino_folders)
foreach(hint ${openvino_hints})
  file(GLOB found "${hint}/lib/python3*/site-packages/openvino/include")
  list(APPEND openvino_folders ${found})
endforeach()
find_path(HETERO_OPENVINO_INCLUDE openvino/c/openvino.h HINTS ${openvino_folders}
  DOC "Folder of OpenVINO's headers, to check our own against")
if(HETERO_OPENVINO_INCLUDE)
  add_library(openvino_check OBJECT ${CMAKE_CURRENT_LIST_DIR}/openvino_check.c)
  target_include_directories(openvino_check PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/src)
  target_include_directories(openvino_check SYSTEM PRIVATE ${HETERO_OPENVINO_INCLUDE})
else()
  message(STATUS "OpenVINO's headers not found: src/device/npu/openvino_api.h is not checked against them")
endif()
