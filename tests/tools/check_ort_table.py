"""Would cmake/onnxruntime_check.c notice a change of ONNX Runtime's tables? No package here carries the real header, so one is
made from our own rows: it must pass as it is, and fail with any one function at another position or of another prototype.

usage: check_ort_table.py SOURCE_FOLDER COMPILER
"""
import pathlib
import re
import subprocess
import sys
import tempfile

source, compiler = pathlib.Path(sys.argv[1]), sys.argv[2]
text = (source / "src/device/npu/onnxruntime_api.h").read_text().replace("\\\n", " ")


def rows(macro):
    body = re.search(rf"#define {macro}\(X\)(.*)", text).group(1)
    found = re.findall(r"X\((\d+), ([^,]+), (\w+),\s+(\((?:[^()]|\([^()]*\))*\))\)", body)
    assert len(found) == body.count("X("), f"{macro}: rows are written in another way"
    return [(int(position), result, name, parameters) for position, result, name, parameters in found]


def table(name, functions):
    lines, at = [f"typedef struct {name} {{"], 0
    for position, result, function, parameters in sorted(functions):
        lines += [f"void (*unused{i})(void);" for i in range(at, position)]
        lines.append(f"{result}(*{function}){parameters};")
        at = position + 1
    return "\n".join(lines + [f"}} {name};"])


ENUMS = """
typedef enum { ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT = 1, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8 = 2,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64 = 7, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16 = 10,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16 = 16 } ONNXTensorElementDataType;
typedef enum { ORT_OP_ATTR_INT = 1, ORT_OP_ATTR_FLOAT = 3, ORT_OP_ATTR_STRING = 5 } OrtOpAttrType;
typedef enum { ORT_LOGGING_LEVEL_FATAL = 4 } OrtLoggingLevel;
typedef enum { OrtHardwareDeviceType_CPU, OrtHardwareDeviceType_GPU, OrtHardwareDeviceType_NPU } OrtHardwareDeviceType;
typedef enum { OrtInvalidAllocator = -1, OrtDeviceAllocator = 0 } OrtAllocatorType;
typedef enum { OrtMemTypeCPUInput = -2, OrtMemTypeDefault = 0 } OrtMemType;
"""
OPAQUE = sorted(set(re.findall(r"typedef struct (Ort\w+) Ort\w+;", text)) - {"OrtApi", "OrtModelEditorApi"})


def passes(api, editor, folder):
    header = ["#include <stdbool.h>", "#include <stddef.h>", "#include <stdint.h>", "#define ORT_API_VERSION 24", ENUMS,
              "typedef struct OrtApi OrtApi;", "typedef struct OrtModelEditorApi OrtModelEditorApi;",
              *[f"typedef struct {name} {name};" for name in OPAQUE],
              "typedef struct OrtApiBase { const OrtApi *(*GetApi)(uint32_t); const char *(*GetVersionString)(void); } OrtApiBase;",
              table("OrtApi", api), table("OrtModelEditorApi", editor)]
    (folder / "onnxruntime_c_api.h").write_text("\n".join(header) + "\n")
    return subprocess.run([compiler, "-std=gnu17", "-fsyntax-only", f"-I{source / 'src'}", f"-I{folder}",
                           source / "cmake/onnxruntime_check.c"], capture_output=True).returncode == 0


api, editor = rows("HT_ORT_FUNCTIONS"), rows("HT_ORT_EDITOR_FUNCTIONS")
with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    assert passes(api, editor, folder), "the header made of our own rows does not pass"
    for functions in (api, editor):
        taken = {row[0] for row in functions}
        for i, (position, result, function, parameters) in enumerate(functions):
            other = list(functions)
            if position + 1 in taken:  # neighbours change places
                k = next(k for k, row in enumerate(functions) if row[0] == position + 1)
                other[i], other[k] = (position + 1, *functions[i][1:]), (position, *functions[k][1:])
            else:
                other[i] = (position + 1, result, function, parameters)
            assert not passes(*((other, editor) if functions is api else (api, other)), folder), f"{function} moved unseen"
            if i % 8 == 0:
                other = list(functions)
                other[i] = (position, result, function, "(void *, void *)")
                assert not passes(*((other, editor) if functions is api else (api, other)), folder), \
                    f"{function} changed unseen"
print(f"{len(api) + len(editor)} functions: each one's position is checked")
