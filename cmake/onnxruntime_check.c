/* Compiled, never linked: our short table of ONNX Runtime's functions against the real header. A difference does not
 * compile. */
#include <onnxruntime_c_api.h>

#define HT_ORT_CHECK
#include "device/npu/onnxruntime_api.h"

#define SAME(table, position, result, name, parameters)                                                            \
    _Static_assert(offsetof(table, name) == (position) * sizeof(void (*)(void)), #name " is at another position"); \
    _Static_assert(__builtin_types_compatible_p(__typeof__(((table *)0)->name), result(*) parameters),             \
                   #name " has another prototype");
#define SAME_API(position, result, name, parameters) SAME(OrtApi, position, result, name, parameters)
#define SAME_EDITOR(position, result, name, parameters) SAME(OrtModelEditorApi, position, result, name, parameters)
HT_ORT_FUNCTIONS(SAME_API)
HT_ORT_EDITOR_FUNCTIONS(SAME_EDITOR)
SAME(OrtApiBase, 0, const OrtApi *, GetApi, (uint32_t))
SAME(OrtApiBase, 1, const char *, GetVersionString, (void))

_Static_assert(ORT_API_VERSION >= HT_ORT_VERSION, "the header is older than what we ask for");
_Static_assert(HT_ORT_F32 == (int)ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT &&
                   HT_ORT_U8 == (int)ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8 &&
                   HT_ORT_I64 == (int)ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
               "an element type has another number");
_Static_assert(HT_ORT_ATTRIBUTE_INT == (int)ORT_OP_ATTR_INT, "an attribute type has another number");
_Static_assert(HT_ORT_LOG_FATAL == (int)ORT_LOGGING_LEVEL_FATAL &&
                   HT_ORT_HARDWARE_CPU == (int)OrtHardwareDeviceType_CPU &&
                   HT_ORT_HARDWARE_GPU == (int)OrtHardwareDeviceType_GPU &&
                   HT_ORT_HARDWARE_NPU == (int)OrtHardwareDeviceType_NPU &&
                   HT_ORT_DEVICE_ALLOCATOR == (int)OrtDeviceAllocator &&
                   HT_ORT_MEMORY_DEFAULT == (int)OrtMemTypeDefault,
               "a constant has another number");
