# Turns text files into one C file of strings: cmake -DINPUTS=a.cl;b.cl -DOUTPUT=x.c -P embed.cmake
# Each becomes `const char ht_cl_source_NAME[]` (NAME: the file's name up to its dot), one literal a source line.
set(text "/* Made by cmake/embed.cmake: do not edit. */\n")
foreach(input ${INPUTS})
  get_filename_component(name "${input}" NAME_WE)
  file(READ "${input}" content)
  string(REPLACE "\\" "\\\\" content "${content}")
  string(REPLACE "\"" "\\\"" content "${content}")
  string(REPLACE "\n" "\\n\"\n    \"" content "${content}")
  string(APPEND text "extern const char ht_cl_source_${name}[];\nconst char ht_cl_source_${name}[] =\n    \"${content}\";\n")
endforeach()
file(WRITE "${OUTPUT}" "${text}")
