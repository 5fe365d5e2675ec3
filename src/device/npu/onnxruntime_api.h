/* The part of ONNX Runtime's C API that the engine calls, declared by us because no package is sure to carry the header and
 * the library is opened at run time.
 *
 * The library exports one function, OrtGetApiBase; what it hands out are tables of function pointers, which later versions
 * only ever append to. So a function is a table, a position and a prototype, and a library that knows version 24 (1.24) has
 * all rows below. cmake/onnxruntime_check.c compiles every row against the real header where it is installed (HT_ORT_CHECK:
 * the types then come from there).
 */
#ifndef HT_ONNXRUNTIME_API_H
#define HT_ONNXRUNTIME_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HT_ORT_VERSION 24 /* of the tables: what GetApi is asked for */

enum {
    HT_ORT_F32 = 1,
    HT_ORT_U8 = 2,
    HT_ORT_I64 = 7,
    HT_ORT_F16 = 10,
    HT_ORT_BF16 = 16
};                                                                                  /* ONNXTensorElementDataType */
enum { HT_ORT_ATTRIBUTE_INT = 1 };                                                  /* OrtOpAttrType */
enum { HT_ORT_LOG_FATAL = 4 };                                                      /* OrtLoggingLevel */
enum { HT_ORT_HARDWARE_CPU = 0, HT_ORT_HARDWARE_GPU = 1, HT_ORT_HARDWARE_NPU = 2 }; /* OrtHardwareDeviceType */
enum { HT_ORT_DEVICE_ALLOCATOR = 0 };                                               /* OrtAllocatorType */
enum { HT_ORT_MEMORY_DEFAULT = 0 };                                                 /* OrtMemType */

#ifndef HT_ORT_CHECK
typedef unsigned OrtLoggingLevel, ONNXTensorElementDataType, OrtOpAttrType, OrtHardwareDeviceType;
typedef int OrtAllocatorType, OrtMemType; /* these enums have negative values */
typedef struct OrtApi OrtApi;
typedef struct OrtModelEditorApi OrtModelEditorApi;
typedef struct OrtStatus OrtStatus;
typedef struct OrtEnv OrtEnv;
typedef struct OrtSession OrtSession;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtRunOptions OrtRunOptions;
typedef struct OrtValue OrtValue;
typedef struct OrtMemoryInfo OrtMemoryInfo;
typedef struct OrtAllocator OrtAllocator;
typedef struct OrtTensorTypeAndShapeInfo OrtTensorTypeAndShapeInfo;
typedef struct OrtTypeInfo OrtTypeInfo;
typedef struct OrtValueInfo OrtValueInfo;
typedef struct OrtNode OrtNode;
typedef struct OrtGraph OrtGraph;
typedef struct OrtModel OrtModel;
typedef struct OrtOpAttr OrtOpAttr;
typedef struct OrtKeyValuePairs OrtKeyValuePairs;
typedef struct OrtHardwareDevice OrtHardwareDevice;
typedef struct OrtEpDevice OrtEpDevice;
typedef struct OrtEpAssignedSubgraph OrtEpAssignedSubgraph;
typedef struct OrtEpAssignedNode OrtEpAssignedNode;
typedef struct OrtApiBase {
    const OrtApi *(*GetApi)(uint32_t version);
    const char *(*GetVersionString)(void);
} OrtApiBase;
#endif

/* X(position in OrtApi, counted from 0, result, name, parameters) */
#define HT_ORT_FUNCTIONS(X)                                                                                            \
    X(2, const char *, GetErrorMessage, (const OrtStatus *))                                                           \
    X(3, OrtStatus *, CreateEnv, (OrtLoggingLevel, const char *, OrtEnv **))                                           \
    X(8, OrtStatus *, CreateSessionFromArray,                                                                          \
      (const OrtEnv *, const void *, size_t, const OrtSessionOptions *, OrtSession **))                                \
    X(9, OrtStatus *, Run,                                                                                             \
      (OrtSession *, const OrtRunOptions *, const char *const *, const OrtValue *const *, size_t, const char *const *, \
       size_t, OrtValue **))                                                                                           \
    X(10, OrtStatus *, CreateSessionOptions, (OrtSessionOptions **))                                                   \
    X(19, OrtStatus *, DisableCpuMemArena, (OrtSessionOptions *))                                                      \
    X(24, OrtStatus *, SetIntraOpNumThreads, (OrtSessionOptions *, int))                                               \
    X(25, OrtStatus *, SetInterOpNumThreads, (OrtSessionOptions *, int))                                               \
    X(48, OrtStatus *, CreateTensorAsOrtValue,                                                                         \
      (OrtAllocator *, const int64_t *, size_t, ONNXTensorElementDataType, OrtValue **))                               \
    X(49, OrtStatus *, CreateTensorWithDataAsOrtValue,                                                                 \
      (const OrtMemoryInfo *, void *, size_t, const int64_t *, size_t, ONNXTensorElementDataType, OrtValue **))        \
    X(51, OrtStatus *, GetTensorMutableData, (OrtValue *, void **))                                                    \
    X(57, OrtStatus *, CreateTensorTypeAndShapeInfo, (OrtTensorTypeAndShapeInfo **))                                   \
    X(58, OrtStatus *, SetTensorElementType, (OrtTensorTypeAndShapeInfo *, ONNXTensorElementDataType))                 \
    X(59, OrtStatus *, SetDimensions, (OrtTensorTypeAndShapeInfo *, const int64_t *, size_t))                          \
    X(68, OrtStatus *, CreateMemoryInfo, (const char *, OrtAllocatorType, int, OrtMemType, OrtMemoryInfo **))          \
    X(69, OrtStatus *, CreateCpuMemoryInfo, (OrtAllocatorType, OrtMemType, OrtMemoryInfo **))                          \
    X(75, OrtStatus *, AllocatorAlloc, (OrtAllocator *, size_t, void **))                                              \
    X(76, OrtStatus *, AllocatorFree, (OrtAllocator *, void *))                                                        \
    X(78, OrtStatus *, GetAllocatorWithDefaultOptions, (OrtAllocator **))                                              \
    X(92, void, ReleaseEnv, (OrtEnv *))                                                                                \
    X(93, void, ReleaseStatus, (OrtStatus *))                                                                          \
    X(94, void, ReleaseMemoryInfo, (OrtMemoryInfo *))                                                                  \
    X(95, void, ReleaseSession, (OrtSession *))                                                                        \
    X(96, void, ReleaseValue, (OrtValue *))                                                                            \
    X(98, void, ReleaseTypeInfo, (OrtTypeInfo *))                                                                      \
    X(99, void, ReleaseTensorTypeAndShapeInfo, (OrtTensorTypeAndShapeInfo *))                                          \
    X(100, void, ReleaseSessionOptions, (OrtSessionOptions *))                                                         \
    X(130, OrtStatus *, AddSessionConfigEntry, (OrtSessionOptions *, const char *, const char *))                      \
    X(131, OrtStatus *, CreateAllocator, (const OrtSession *, const OrtMemoryInfo *, OrtAllocator **))                 \
    X(132, void, ReleaseAllocator, (OrtAllocator *))                                                                   \
    X(211, OrtStatus *, CreateOpAttr, (const char *, const void *, int, OrtOpAttrType, OrtOpAttr **))                  \
    X(212, void, ReleaseOpAttr, (OrtOpAttr *))                                                                         \
    X(285, void, ReleaseValueInfo, (OrtValueInfo *))                                                                   \
    X(286, void, ReleaseNode, (OrtNode *))                                                                             \
    X(287, void, ReleaseGraph, (OrtGraph *))                                                                           \
    X(288, void, ReleaseModel, (OrtModel *))                                                                           \
    X(291, const OrtModelEditorApi *, GetModelEditorApi, (void))                                                       \
    X(298, void, GetKeyValuePairs, (const OrtKeyValuePairs *, const char *const **, const char *const **, size_t *))   \
    X(301, OrtStatus *, RegisterExecutionProviderLibrary, (OrtEnv *, const char *, const char *))                      \
    X(303, OrtStatus *, GetEpDevices, (const OrtEnv *, const OrtEpDevice *const **, size_t *))                         \
    X(304, OrtStatus *, SessionOptionsAppendExecutionProvider_V2,                                                      \
      (OrtSessionOptions *, OrtEnv *, const OrtEpDevice *const *, size_t, const char *const *, const char *const *,    \
       size_t))                                                                                                        \
    X(307, OrtHardwareDeviceType, HardwareDevice_Type, (const OrtHardwareDevice *))                                    \
    X(309, const char *, HardwareDevice_Vendor, (const OrtHardwareDevice *))                                           \
    X(312, const char *, EpDevice_EpName, (const OrtEpDevice *))                                                       \
    X(314, const OrtKeyValuePairs *, EpDevice_EpMetadata, (const OrtEpDevice *))                                       \
    X(316, const OrtHardwareDevice *, EpDevice_Device, (const OrtEpDevice *))                                          \
    X(407, OrtStatus *, Session_GetEpGraphAssignmentInfo,                                                              \
      (const OrtSession *, const OrtEpAssignedSubgraph *const **, size_t *))                                           \
    X(408, OrtStatus *, EpAssignedSubgraph_GetEpName, (const OrtEpAssignedSubgraph *, const char **))                  \
    X(409, OrtStatus *, EpAssignedSubgraph_GetNodes,                                                                   \
      (const OrtEpAssignedSubgraph *, const OrtEpAssignedNode *const **, size_t *))                                    \
    X(412, OrtStatus *, EpAssignedNode_GetOperatorType, (const OrtEpAssignedNode *, const char **))

/* The same of OrtModelEditorApi. */
#define HT_ORT_EDITOR_FUNCTIONS(X)                                                                         \
    X(0, OrtStatus *, CreateTensorTypeInfo, (const OrtTensorTypeAndShapeInfo *, OrtTypeInfo **))           \
    X(5, OrtStatus *, CreateValueInfo, (const char *, const OrtTypeInfo *, OrtValueInfo **))               \
    X(6, OrtStatus *, CreateNode,                                                                          \
      (const char *, const char *, const char *, const char *const *, size_t, const char *const *, size_t, \
       OrtOpAttr **, size_t, OrtNode **))                                                                  \
    X(7, OrtStatus *, CreateGraph, (OrtGraph **))                                                          \
    X(8, OrtStatus *, SetGraphInputs, (OrtGraph *, OrtValueInfo **, size_t))                               \
    X(9, OrtStatus *, SetGraphOutputs, (OrtGraph *, OrtValueInfo **, size_t))                              \
    X(10, OrtStatus *, AddInitializerToGraph, (OrtGraph *, const char *, OrtValue *, bool))                \
    X(11, OrtStatus *, AddNodeToGraph, (OrtGraph *, OrtNode *))                                            \
    X(12, OrtStatus *, CreateModel, (const char *const *, const int *, size_t, OrtModel **))               \
    X(13, OrtStatus *, AddGraphToModel, (OrtModel *, OrtGraph *))                                          \
    X(14, OrtStatus *, CreateSessionFromModel,                                                             \
      (const OrtEnv *, const OrtModel *, const OrtSessionOptions *, OrtSession **))

typedef struct ht_ort { /* one member a function, of its own name; the editor's with the others */
#define HT_ORT_MEMBER(position, result, name, parameters) result(*name) parameters;
    HT_ORT_FUNCTIONS(HT_ORT_MEMBER)
    HT_ORT_EDITOR_FUNCTIONS(HT_ORT_MEMBER)
#undef HT_ORT_MEMBER
    OrtEnv *env;             /* one a process, never released: providers' threads may outlive any device */
    OrtMemoryInfo *host;     /* ordinary memory */
    OrtAllocator *allocator; /* of it; not ours to release */
    char version[32];        /* "1.32.0" */
    char folder[1024];       /* where the library lies */
} ht_ort;

#ifndef HT_ORT_CHECK
/* The functions, found and loaded once; NULL and *why, for a person, where there are none (onnxruntime_loader.c). */
const ht_ort *ht_ort_get(const char **why);
/* As ht_openvino_set_path, and HETERO_ONNXRUNTIME. */
void ht_onnxruntime_set_path(const char *path);
#endif

#endif
