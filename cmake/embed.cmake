# Turns text files into one C file: cmake -DINPUTS=a.clh;b.cl -DTYPE=ht_cl_source -DOUTPUT=x.c -P embed.cmake
# The table ht_cl_sources (the type's name and an s) has a row for each, in the order of INPUTS: the file's name and its
# text, one literal a source line; a row of NULLs ends it. Whoever reads it declares it (src/device/opencl/program.c).
set(rows "")
foreach(input ${INPUTS})
  get_filename_component(name "${input}" NAME)
  file(READ "${input}" content)
  string(REPLACE "\\" "\\\\" content "${content}")
  string(REPLACE "\"" "\\\"" content "${content}")
  string(REPLACE "\n" "\\n\"\n     \"" content "${content}")
  string(APPEND rows "    {\"${name}\",\n     \"${content}\"},\n")
endforeach()
set(type "struct ${TYPE} {\n    const char *name, *text;\n}")
file(WRITE "${OUTPUT}" "/* Made by cmake/embed.cmake: do not edit. */
${type};
extern const struct ${TYPE} ${TYPE}s[];
const struct ${TYPE} ${TYPE}s[] = {
${rows}    {0, 0},
};
")
