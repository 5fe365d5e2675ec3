/* The part of OpenVINO's C API (2026.x) that the engine calls, declared by us because no package is sure to carry the
 * headers and the library is opened at run time. cmake/openvino_check.c compiles every row against the real headers
 * where a wheel is found (HT_OV_CHECK: the types below then come from there).
 */
#ifndef HT_OPENVINO_API_H
#define HT_OPENVINO_API_H

#include <stddef.h>
#include <stdint.h>

typedef struct ht_ov_shape { /* passed by value */
    int64_t rank;
    int64_t *dims;
} ht_ov_shape;

typedef struct ht_ov_property {
    const char *key;
    const void *value; /* every one we use is a string */
} ht_ov_property;

typedef struct ht_ov_version {
    const char *build_number, *description;
} ht_ov_version;

typedef struct ht_ov_devices {
    char **devices;
    size_t size;
} ht_ov_devices;

enum { HT_OV_OK = 0 };                               /* ov_status_e */
enum { HT_OV_F32 = 4, HT_OV_I8 = 7, HT_OV_U8 = 16 }; /* ov_element_type_e */

#ifndef HT_OV_CHECK
typedef int ov_status_e;
typedef unsigned ov_element_type_e;
typedef ht_ov_shape ov_shape_t;
typedef ht_ov_property ov_property_t;
typedef ht_ov_version ov_version_t;
typedef ht_ov_devices ov_available_devices_t;
typedef struct ov_core ov_core_t;
typedef struct ov_model ov_model_t;
typedef struct ov_tensor ov_tensor_t;
typedef struct ov_compiled_model ov_compiled_model_t;
typedef struct ov_infer_request ov_infer_request_t;
#endif

/* X(result, name, parameters) */
#define HT_OV_FUNCTIONS(X)                                                                                       \
    X(ov_status_e, ov_get_openvino_version, (ov_version_t *))                                                    \
    X(void, ov_version_free, (ov_version_t *))                                                                   \
    X(const char *, ov_get_error_info, (ov_status_e))                                                            \
    X(const char *, ov_get_last_err_msg, (void))                                                                 \
    X(void, ov_free, (const char *))                                                                             \
    X(ov_status_e, ov_core_create, (ov_core_t **))                                                               \
    X(void, ov_core_free, (ov_core_t *))                                                                         \
    X(ov_status_e, ov_core_get_available_devices, (const ov_core_t *, ov_available_devices_t *))                 \
    X(void, ov_available_devices_free, (ov_available_devices_t *))                                               \
    X(ov_status_e, ov_core_get_property, (const ov_core_t *, const char *, const char *, char **))               \
    X(ov_status_e, ov_core_read_model_from_memory_buffer,                                                        \
      (const ov_core_t *, const char *, const size_t, const ov_tensor_t *, ov_model_t **))                       \
    X(ov_status_e, ov_core_set_property, (const ov_core_t *, const char *, ...))                                 \
    X(ov_status_e, ov_core_import_model,                                                                         \
      (const ov_core_t *, const char *, const size_t, const char *, ov_compiled_model_t **))                     \
    X(ov_status_e, ov_compiled_model_export_model, (const ov_compiled_model_t *, const char *))                  \
    X(void, ov_model_free, (ov_model_t *))                                                                       \
    X(ov_status_e, ov_core_compile_model_props,                                                                  \
      (const ov_core_t *, const ov_model_t *, const char *, const size_t, const ov_property_t *,                 \
       ov_compiled_model_t **))                                                                                  \
    X(void, ov_compiled_model_free, (ov_compiled_model_t *))                                                     \
    X(ov_status_e, ov_compiled_model_create_infer_request, (const ov_compiled_model_t *, ov_infer_request_t **)) \
    X(void, ov_infer_request_free, (ov_infer_request_t *))                                                       \
    X(ov_status_e, ov_infer_request_set_input_tensor_by_index,                                                   \
      (ov_infer_request_t *, const size_t, const ov_tensor_t *))                                                 \
    X(ov_status_e, ov_infer_request_set_output_tensor_by_index,                                                  \
      (ov_infer_request_t *, const size_t, const ov_tensor_t *))                                                 \
    X(ov_status_e, ov_infer_request_infer, (ov_infer_request_t *))                                               \
    X(ov_status_e, ov_tensor_create_from_host_ptr,                                                               \
      (const ov_element_type_e, const ov_shape_t, void *, ov_tensor_t **))                                       \
    X(void, ov_tensor_free, (ov_tensor_t *))

typedef struct ht_ov { /* one member a function, of its own name */
#define HT_OV_MEMBER(result, name, parameters) result(*name) parameters;
    HT_OV_FUNCTIONS(HT_OV_MEMBER)
#undef HT_OV_MEMBER
} ht_ov;

#ifndef HT_OV_CHECK
/* The functions, found and loaded once; NULL and *why, for a person, where there are none (openvino_loader.c). */
const ht_ov *ht_ov_get(const char **why);
/* The first line of an exception's text that says something: those before it name source files. */
void ht_ov_first_sentence(const char *text, char *out, size_t capacity);
/* Where the library is looked for: a file, a wheel's folder, or NULL for the search (HETERO_OPENVINO, Python environments,
 * the system's libraries). Process-wide; to be called before the first device is listed or opened. */
void ht_openvino_set_path(const char *path);
#endif

#endif
