/* Runs an exported SavedModel without Python, through the loader that TensorFlow Serving uses.

   load_saved_model FOLDER RESULT INPUT OUTPUT... -- IMAGE...

   FOLDER holds saved_model.pb. INPUT and OUTPUTs are tensors' names as the signature has them, such as
   serving_default_image_bytes:0; the input is a string [B], the content of the B image files. RESULT receives each
   output in turn: int32 dtype, int32 rank, int64 sides, int64 bytes of data, data. A string is its int64 length and its
   bytes. Numbers are in the machine's byte order. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/c/c_api.h"
#include "tensorflow/c/tf_tstring.h"

#define MOST_OUTPUTS 16

static void fail(const char* what, const char* why) {
  fprintf(stderr, "%s: %s\n", what, why);
  exit(1);
}

static void check(TF_Status* status, const char* what) {
  if (TF_GetCode(status) != TF_OK) fail(what, TF_Message(status));
}

static TF_Output find_tensor(TF_Graph* graph, const char* name) {
  char operation[1024];
  TF_Output found = {NULL, 0};
  const char* colon = strrchr(name, ':');
  if (colon == NULL || (size_t)(colon - name) >= sizeof operation) fail(name, "is not OPERATION:INDEX");
  memcpy(operation, name, colon - name);
  operation[colon - name] = 0;
  found.oper = TF_GraphOperationByName(graph, operation);
  found.index = atoi(colon + 1);
  if (found.oper == NULL) fail(name, "is not in the graph");
  return found;
}

static void read_file(const char* path, TF_TString* content) {
  FILE* file = fopen(path, "rb");
  if (file == NULL || fseek(file, 0, SEEK_END) != 0) fail(path, "cannot be read");
  long size = ftell(file);
  char* bytes = malloc(size + 1);
  rewind(file);
  if (bytes == NULL || fread(bytes, 1, size, file) != (size_t)size) fail(path, "cannot be read");
  fclose(file);
  TF_StringInit(content);
  TF_StringCopy(content, bytes, size);
  free(bytes);
}

static TF_Tensor* read_files(char** paths, int64_t count) {
  TF_Tensor* tensor = TF_AllocateTensor(TF_STRING, &count, 1, count * sizeof(TF_TString));
  TF_TString* strings = TF_TensorData(tensor);
  for (int64_t i = 0; i < count; i++) read_file(paths[i], &strings[i]);
  return tensor;
}

static void write_number(int64_t value, FILE* file) { fwrite(&value, sizeof value, 1, file); }

static void write_tensor(const TF_Tensor* tensor, FILE* file) {
  int32_t head[2] = {TF_TensorType(tensor), TF_NumDims(tensor)};
  fwrite(head, sizeof head, 1, file);
  for (int32_t axis = 0; axis < head[1]; axis++) write_number(TF_Dim(tensor, axis), file);
  if (head[0] != TF_STRING) {
    write_number(TF_TensorByteSize(tensor), file);
    fwrite(TF_TensorData(tensor), 1, TF_TensorByteSize(tensor), file);
    return;
  }
  const TF_TString* strings = TF_TensorData(tensor);
  int64_t count = TF_TensorElementCount(tensor), size = 0;
  for (int64_t i = 0; i < count; i++) size += sizeof size + TF_StringGetSize(&strings[i]);
  write_number(size, file);
  for (int64_t i = 0; i < count; i++) {
    write_number(TF_StringGetSize(&strings[i]), file);
    fwrite(TF_StringGetDataPointer(&strings[i]), 1, TF_StringGetSize(&strings[i]), file);
  }
}

int main(int argc, char** argv) {
  int dashes = 4;
  while (dashes < argc && strcmp(argv[dashes], "--") != 0) dashes++;
  int outputs = dashes - 4;
  if (dashes >= argc || outputs < 1 || outputs > MOST_OUTPUTS) {
    fail(argv[0], "FOLDER RESULT INPUT OUTPUT... -- IMAGE...");
  }

  TF_Status* status = TF_NewStatus();
  TF_Graph* graph = TF_NewGraph();
  TF_SessionOptions* options = TF_NewSessionOptions();
  const char* tags[] = {"serve"};
  TF_Session* session = TF_LoadSessionFromSavedModel(options, NULL, argv[1], tags, 1, graph, NULL, status);
  check(status, "load");

  TF_Output input = find_tensor(graph, argv[3]), fetched[MOST_OUTPUTS];
  for (int i = 0; i < outputs; i++) fetched[i] = find_tensor(graph, argv[4 + i]);
  TF_Tensor* images = read_files(argv + dashes + 1, argc - dashes - 1);
  TF_Tensor* results[MOST_OUTPUTS];
  TF_SessionRun(session, NULL, &input, &images, 1, fetched, results, outputs, NULL, 0, NULL, status);
  check(status, "run");

  FILE* file = fopen(argv[2], "wb");
  if (file == NULL) fail(argv[2], "cannot be written");
  for (int i = 0; i < outputs; i++) {
    write_tensor(results[i], file);
    TF_DeleteTensor(results[i]);
  }
  if (fclose(file) != 0) fail(argv[2], "cannot be written");
  TF_DeleteTensor(images);
  TF_CloseSession(session, status);
  check(status, "close");
  TF_DeleteSession(session, status);
  TF_DeleteSessionOptions(options);
  TF_DeleteGraph(graph);
  TF_DeleteStatus(status);
  return 0;
}
