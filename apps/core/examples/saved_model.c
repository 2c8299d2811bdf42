/* Runs an exported SavedModel with TensorFlow's C API, and prints its outputs as JSON.

   saved_model EXPORT SIGNATURE [--ops=LIBRARY...] [NAME=VALUE...]

   EXPORT is the folder of a version, such as saved_models/sentiment/1. NAME is an input of the
   signature. The value of a string is its text, or @FILE for the bytes of a file; of an input that
   is named several times, a batch. The value of a number is a number, or @FILE for an array that
   numpy.save wrote. Each LIBRARY has the kernels of operations, as those of TensorFlow Text.

   Built with the headers and libraries of the Python package, which are the folder TF of

   TF=$(python -c 'import tensorflow as tf; print(tf.sysconfig.get_lib())')
   gcc -std=c11 -O2 -I"$TF/include" saved_model.c -o saved_model "$TF/libtensorflow_cc.so.2" \
       "$TF/libtensorflow_framework.so.2" -lm -Wl,-rpath,"$TF"
*/

#define _POSIX_C_SOURCE 200809L

#include <inttypes.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/c/c_api.h"
#include "tensorflow/c/tf_tstring.h"

#define MOST 64 /* inputs or outputs of a signature, and axes of a tensor */

static void fail(const char *what, const char *which) {
  fprintf(stderr, "saved_model: %s: %s\n", which, what);
  exit(2);
}

static void check(const TF_Status *status, const char *which) {
  if (TF_GetCode(status) != TF_OK) fail(TF_Message(status), which);
}

static void *allocate(size_t size) {
  void *memory = calloc(1, size ? size : 1);
  if (!memory) fail("not enough memory", "calloc");
  return memory;
}

/* The MetaGraphDef that TensorFlow returns is a protocol buffer. Only the names and the types of
   the inputs and outputs of a signature are read from it. */

typedef struct {
  const uint8_t *at, *end;
} Bytes;

static uint64_t read_varint(Bytes *bytes) {
  uint64_t value = 0;
  for (int shift = 0; bytes->at < bytes->end && shift < 64; shift += 7) {
    uint8_t byte = *bytes->at++;
    value |= (uint64_t)(byte & 127) << shift;
    if (byte < 128) break;
  }
  return value;
}

/* The number of the next field, 0 at the end. A field has a value or a content. */
static uint64_t next_field(Bytes *bytes, uint64_t *value, Bytes *content) {
  if (bytes->at >= bytes->end) return 0;
  uint64_t key = read_varint(bytes), size = 0;
  switch (key & 7) {
    case 0: *value = read_varint(bytes); break;
    case 1: size = 8; break;
    case 2: size = read_varint(bytes); break;
    case 5: size = 4; break;
    default: fail("not a protocol buffer", "the MetaGraphDef");
  }
  if (size > (uint64_t)(bytes->end - bytes->at)) fail("it is cut short", "the MetaGraphDef");
  *content = (Bytes){bytes->at, bytes->at + size};
  bytes->at += size;
  return key >> 3;
}

static char *text_of(Bytes bytes) {
  size_t size = bytes.end - bytes.at;
  char *text = allocate(size + 1);
  memcpy(text, bytes.at, size);
  return text;
}

typedef struct {
  char *name;   /* in the signature */
  char *tensor; /* in the graph, such as "serving_default_text:0" */
  TF_DataType type;
  int rank; /* -1 if it is not known */
} Argument;

typedef struct {
  Argument inputs[MOST], outputs[MOST];
  int input_count, output_count;
} Signature;

static int read_rank(Bytes shape) {
  uint64_t value = 0, field;
  Bytes content;
  int rank = 0;
  while ((field = next_field(&shape, &value, &content))) {
    if (field == 2) rank++;
    if (field == 3 && value) return -1;
  }
  return rank;
}

static Argument read_argument(Bytes entry) {
  Argument found = {NULL, NULL, 0, 0};
  uint64_t value = 0, field;
  Bytes content, info;
  while ((field = next_field(&entry, &value, &content))) {
    if (field == 1) found.name = text_of(content);
    if (field != 2) continue;
    info = content;
    while ((field = next_field(&info, &value, &content))) {
      if (field == 1) found.tensor = text_of(content);
      if (field == 2) found.type = (TF_DataType)value;
      if (field == 3) found.rank = read_rank(content);
    }
  }
  if (!found.name || !found.tensor) fail("an input or output is not a tensor", "the signature");
  return found;
}

static Signature read_signature(Bytes graph, const char *wanted) {
  Signature found = {.input_count = 0, .output_count = 0};
  uint64_t value = 0, field;
  Bytes content, entry, definition;
  while ((field = next_field(&graph, &value, &content))) {
    if (field != 5) continue; /* signature_def */
    char *name = NULL;
    definition = (Bytes){NULL, NULL};
    for (entry = content; (field = next_field(&entry, &value, &content));) {
      if (field == 1) name = text_of(content);
      if (field == 2) definition = content;
    }
    if (!name || strcmp(name, wanted)) continue;
    while ((field = next_field(&definition, &value, &content))) {
      if (field == 1 && found.input_count < MOST)
        found.inputs[found.input_count++] = read_argument(content);
      if (field == 2 && found.output_count < MOST)
        found.outputs[found.output_count++] = read_argument(content);
    }
    return found;
  }
  fail("the export has no such signature", wanted);
  return found;
}

static TF_Output output_of(TF_Graph *graph, const Argument *argument) {
  char *name = strdup(argument->tensor), *colon = strrchr(name, ':');
  if (colon) *colon = 0;
  TF_Output found = {TF_GraphOperationByName(graph, name), colon ? atoi(colon + 1) : 0};
  if (!found.oper) fail("it is not in the graph", argument->tensor);
  free(name);
  return found;
}

/* The inputs */

static char *read_file(const char *path, size_t *size) {
  FILE *file = fopen(path, "rb");
  if (!file) fail("it cannot be opened", path);
  char *content = NULL;
  *size = 0;
  for (size_t room = 0, count = 1; count; *size += count) {
    if (*size == room && !(content = realloc(content, room = 2 * room + 4096)))
      fail("not enough memory", path);
    count = fread(content + *size, 1, room - *size, file);
  }
  if (ferror(file)) fail("it cannot be read", path);
  fclose(file);
  return content;
}

static TF_Tensor *strings(const Argument *input, char **values, int count) {
  int rank = input->rank < 0 ? 1 : input->rank;
  int64_t dims[MOST];
  if (rank == 0 && count != 1) fail("it takes one value", input->name);
  if (rank > MOST) fail("it has too many axes", input->name);
  for (int i = 0; i < rank; i++) dims[i] = i + 1 < rank ? 1 : count;
  TF_Tensor *tensor = TF_AllocateTensor(TF_STRING, dims, rank, count * sizeof(TF_TString));
  TF_TString *data = TF_TensorData(tensor);
  for (int i = 0; i < count; i++) {
    size_t size = strlen(values[i]);
    char *content = values[i][0] == '@' ? read_file(values[i] + 1, &size) : strdup(values[i]);
    TF_TString_Init(&data[i]);
    TF_TString_Copy(&data[i], content, size);
    free(content);
  }
  return tensor;
}

static const char *npy_type(const Argument *input) {
  switch (input->type) {
    case TF_FLOAT: return "'<f4'";
    case TF_INT32: return "'<i4'";
    case TF_INT64: return "'<i8'";
    case TF_BOOL: return "'|b1'";
    default: fail("this program has no values of its type", input->name);
  }
  return NULL;
}

static TF_Tensor *array(const Argument *input, const char *path) {
  size_t size, start, header, length = 0;
  char *content = read_file(path, &size);
  if (size < 12 || memcmp(content, "\x93NUMPY", 6)) fail("it is no file of numpy.save", path);
  const uint8_t *sizes = (const uint8_t *)content + 8;
  start = content[6] == 1 ? 10 : 12;
  header = sizes[0] | sizes[1] << 8;
  if (start + header > size) fail("it is cut short", path);
  content[start + header - 1] = 0; /* a line break */
  if (!strstr(content + start, npy_type(input)) || strstr(content + start, "True"))
    fail("its array has another type or order than the input", path);
  int64_t dims[MOST], count = 1;
  int rank = 0;
  char *at = strstr(content + start, "'shape': (");
  if (!at) fail("it has no shape", path);
  for (at += 10; *at && *at != ')' && rank < MOST;) {
    char *end;
    dims[rank] = strtoll(at, &end, 10);
    if (end == at) fail("it has no shape", path);
    count *= dims[rank++];
    at = end + strspn(end, ", ");
  }
  length = count * TF_DataTypeSize(input->type);
  if (length != size - start - header) fail("it is cut short", path);
  TF_Tensor *tensor = TF_AllocateTensor(input->type, dims, rank, length);
  memcpy(TF_TensorData(tensor), content + start + header, length);
  free(content);
  return tensor;
}

static TF_Tensor *number(const Argument *input, const char *value) {
  char *end;
  double found = strtod(value, &end);
  if (end == value || *end) fail("it is not a number", value);
  int64_t dims[MOST];
  int rank = input->rank < 0 ? 0 : input->rank;
  for (int i = 0; i < rank && i < MOST; i++) dims[i] = 1;
  size_t size = TF_DataTypeSize(input->type);
  TF_Tensor *tensor = TF_AllocateTensor(input->type, dims, rank, size);
  npy_type(input);
  if (input->type == TF_FLOAT) *(float *)TF_TensorData(tensor) = (float)found;
  if (input->type == TF_INT32) *(int32_t *)TF_TensorData(tensor) = (int32_t)found;
  if (input->type == TF_INT64) *(int64_t *)TF_TensorData(tensor) = strtoll(value, NULL, 10);
  if (input->type == TF_BOOL) *(uint8_t *)TF_TensorData(tensor) = found != 0;
  return tensor;
}

static TF_Tensor *tensor_of(const Argument *input, int argc, char **argv) {
  char **values = allocate(argc * sizeof(char *));
  size_t size = strlen(input->name);
  int count = 0;
  for (int i = 0; i < argc; i++)
    if (!strncmp(argv[i], input->name, size) && argv[i][size] == '=')
      values[count++] = argv[i] + size + 1;
  if (!count) fail("the signature needs this input", input->name);
  TF_Tensor *found;
  if (input->type == TF_STRING) {
    found = strings(input, values, count);
  } else {
    if (count > 1) fail("it takes one value", input->name);
    found = values[0][0] == '@' ? array(input, values[0] + 1) : number(input, values[0]);
  }
  free(values);
  return found;
}

/* The outputs */

static void print_string(const char *text, size_t size) {
  putchar('"');
  for (size_t i = 0; i < size; i++) {
    unsigned char c = text[i];
    if (c == '"' || c == '\\' || c < 32)
      printf("\\u%04x", c);
    else
      putchar(c);
  }
  putchar('"');
}

static void print_float(double value) {
  if (isnan(value))
    printf("NaN"); /* as Python's json */
  else if (isinf(value))
    printf(value > 0 ? "Infinity" : "-Infinity");
  else
    printf("%.9g", value);
}

static void print_tensor(const Argument *output, const TF_Tensor *tensor) {
  printf("\"%s\": {\"shape\": [", output->name);
  for (int i = 0; i < TF_NumDims(tensor); i++)
    printf("%s%" PRId64, i ? ", " : "", TF_Dim(tensor, i));
  printf("], \"values\": [");
  const void *data = TF_TensorData(tensor);
  for (int64_t i = 0; i < TF_TensorElementCount(tensor); i++) {
    if (i) printf(", ");
    switch (TF_TensorType(tensor)) {
      case TF_FLOAT: print_float(((const float *)data)[i]); break;
      case TF_INT32: printf("%" PRId32, ((const int32_t *)data)[i]); break;
      case TF_INT64: printf("%" PRId64, ((const int64_t *)data)[i]); break;
      case TF_BOOL: printf(((const uint8_t *)data)[i] ? "true" : "false"); break;
      case TF_STRING: {
        const TF_TString *string = (const TF_TString *)data + i;
        print_string(TF_TString_GetDataPointer(string), TF_TString_GetSize(string));
        break;
      }
      default: fail("this program has no values of its type", output->name);
    }
  }
  printf("]}");
}

int main(int argc, char **argv) {
  if (argc < 3) fail("needs EXPORT SIGNATURE [--ops=LIBRARY...] [NAME=VALUE...]", "usage");
  setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "0", 0); /* TensorFlow 2.21 can crash without it */
  setenv("TF_CPP_MIN_LOG_LEVEL", "2", 0);
  TF_Status *status = TF_NewStatus();
  for (int i = 3; i < argc; i++) {
    if (strncmp(argv[i], "--ops=", 6)) continue;
    TF_LoadLibrary(argv[i] + 6, status);
    check(status, argv[i] + 6);
  }
  TF_Graph *graph = TF_NewGraph();
  TF_SessionOptions *options = TF_NewSessionOptions();
  TF_Buffer *definition = TF_NewBuffer();
  const char *tags[] = {"serve"};
  TF_Session *session = TF_LoadSessionFromSavedModel(options, NULL, argv[1], tags, 1, graph,
                                                     definition, status);
  check(status, argv[1]);
  const uint8_t *start = definition->data;
  Signature signature = read_signature((Bytes){start, start + definition->length}, argv[2]);

  TF_Output inputs[MOST], outputs[MOST];
  TF_Tensor *given[MOST], *found[MOST];
  for (int i = 0; i < signature.input_count; i++) {
    inputs[i] = output_of(graph, &signature.inputs[i]);
    given[i] = tensor_of(&signature.inputs[i], argc - 3, argv + 3);
  }
  for (int i = 0; i < signature.output_count; i++)
    outputs[i] = output_of(graph, &signature.outputs[i]);
  TF_SessionRun(session, NULL, inputs, given, signature.input_count, outputs, found,
                signature.output_count, NULL, 0, NULL, status);
  check(status, argv[2]);
  putchar('{');
  for (int i = 0; i < signature.output_count; i++) {
    if (i) printf(", ");
    print_tensor(&signature.outputs[i], found[i]);
    TF_DeleteTensor(found[i]);
  }
  puts("}");
  for (int i = 0; i < signature.input_count; i++) TF_DeleteTensor(given[i]);
  TF_CloseSession(session, status);
  TF_DeleteSession(session, status);
  TF_DeleteSessionOptions(options);
  TF_DeleteGraph(graph);
  TF_DeleteBuffer(definition);
  TF_DeleteStatus(status);
  return 0;
}
