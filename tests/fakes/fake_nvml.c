/* A stand-in for the NVIDIA driver's management library: just enough of its ABI for pynvml, with moods.
   FAKE_NVML_MOOD: ok, none (no GPU), bare (tells no more than it must), lost (fails), hang, two (GPUs), mig (two
   instances, with a gap in their numbers), unified (no memory of its own), secret (does not say who uses it).
   FAKE_NVML_COMPUTE, FAKE_NVML_GRAPHICS: processes as pid:bytes,pid:bytes; bytes may be ? for unknown. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6, TOO_SMALL = 7, LOST = 15 };
typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned int gpu, memory; } rates_t;
typedef struct { unsigned int pid; unsigned long long used; unsigned int gpu_instance, compute_instance; } process_t;
static int devices[8]; /* 0 … 3: GPUs, 4 … 7: MIG instances */
static int is(const char *mood) { const char *m = getenv("FAKE_NVML_MOOD"); return m && !strcmp(m, mood); }
static int number(void *h) { return (int)((int *)h - devices); }

int nvmlInit_v2(void) { return OK; }
int nvmlInitWithFlags(unsigned int f) { (void)f; return OK; }
int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int code) { return code == NO_PERMISSION ? "Insufficient Permissions" : "GPU is lost"; }
int nvmlSystemGetDriverVersion(char *out, unsigned int n) { strncpy(out, "560.35", n); return OK; }
int nvmlDeviceGetCount_v2(unsigned int *n) {
  if (is("lost")) return LOST;
  if (is("hang")) for (;;) sleep(60);
  *n = is("none") ? 0 : is("two") ? 2 : 1;
  return OK;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned int i, void **h) { *h = &devices[i]; return OK; }
int nvmlDeviceGetName(void *h, char *out, unsigned int n) {
  strncpy(out, number(h) > 3 ? "GeForce GTX 1650 MIG 1g" : "GeForce GTX 1650", n);
  return OK;
}
int nvmlDeviceGetUUID(void *h, char *out, unsigned int n) {
  if (is("bare")) return NOT_SUPPORTED;
  strncpy(out, number(h) > 3 ? "MIG-0" : "GPU-0", n);
  out[4] = (char)('0' + number(h));
  return OK;
}
int nvmlDeviceGetMemoryInfo(void *h, memory_t *m) {
  if (is("unified")) return NOT_SUPPORTED;
  m->total = 4294967296ULL >> (number(h) > 3 ? 1 : 0);
  m->used = 1073741824ULL >> number(h);
  m->free = m->total - m->used;
  return OK;
}
int nvmlDeviceGetUtilizationRates(void *h, rates_t *r) {
  (void)h; if (is("bare")) return NOT_SUPPORTED; r->gpu = 42; r->memory = 7; return OK;
}
int nvmlDeviceGetTemperature(void *h, int kind, unsigned int *t) {
  (void)h; (void)kind; if (is("bare")) return NOT_SUPPORTED; *t = 55; return OK;
}
int nvmlDeviceGetTemperatureV(void *h, void *t) { (void)h; (void)t; return NOT_SUPPORTED; }
int nvmlDeviceGetCudaComputeCapability(void *h, int *major, int *minor) {
  if (is("bare") || number(h) > 3) return NOT_SUPPORTED;
  *major = 7; *minor = 5; return OK;
}
int nvmlDeviceGetMigMode(void *h, unsigned int *now, unsigned int *later) {
  (void)h; if (is("bare")) return NOT_SUPPORTED; *now = *later = is("mig"); return OK;
}
int nvmlDeviceGetMaxMigDeviceCount(void *h, unsigned int *n) { (void)h; *n = 3; return OK; }
int nvmlDeviceGetMigDeviceHandleByIndex(void *h, unsigned int i, void **out) {
  (void)h; if (i == 1) return NOT_FOUND; *out = &devices[4 + i]; return OK;
}
static int processes(const char *variable, unsigned int *n, process_t *out) {
  const char *text = getenv(variable);
  unsigned int count = 0;
  if (is("secret")) return NO_PERMISSION;
  while (text && *text) {
    char *rest;
    unsigned int pid = (unsigned int)strtoul(text, &rest, 10);
    unsigned long long used = rest[1] == '?' ? (rest += 2, ~0ULL) : strtoull(rest + 1, &rest, 10);
    if (count < *n && out) { out[count].pid = pid; out[count].used = used; }
    count++;
    text = *rest == ',' ? rest + 1 : rest;
  }
  if (count > *n || (count && !out)) { *n = count; return TOO_SMALL; }
  *n = count;
  return OK;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *h, unsigned int *n, process_t *out) {
  (void)h; return processes("FAKE_NVML_COMPUTE", n, out);
}
int nvmlDeviceGetGraphicsRunningProcesses_v3(void *h, unsigned int *n, process_t *out) {
  (void)h; return processes("FAKE_NVML_GRAPHICS", n, out);
}
