# Checks src/device/npu/onnxruntime_api.h against ONNX Runtime's own C header where one of version 1.24 or newer is installed
# (nothing links against it). -DHETERO_ONNXRUNTIME_INCLUDE=DIR names the folder that holds onnxruntime_c_api.h.
find_path(HETERO_ONNXRUNTIME_INCLUDE onnxruntime_c_api.h PATH_SUFFIXES onnxruntime onnxruntime/core/session
  DOC "Folder of ONNX Runtime's header, to check our own against")
set(onnxruntime_version 0)
if(HETERO_ONNXRUNTIME_INCLUDE)
  file(STRINGS ${HETERO_ONNXRUNTIME_INCLUDE}/onnxruntime_c_api.h line REGEX "^#define ORT_API_VERSION [0-9]+")
  string(REGEX REPLACE "[^0-9]*([0-9]+).*" "\\1" onnxruntime_version "${line}")
endif()
if(onnxruntime_version GREATER_EQUAL 24)
  add_library(onnxruntime_check OBJECT ${CMAKE_CURRENT_LIST_DIR}/onnxruntime_check.c)
  target_include_directories(onnxruntime_check PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/src)
  target_include_directories(onnxruntime_check SYSTEM PRIVATE ${HETERO_ONNXRUNTIME_INCLUDE})
else()
  message(STATUS "ONNX Runtime's header not found: src/device/npu/onnxruntime_api.h is not checked against it")
endif()
