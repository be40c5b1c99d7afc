/* A stand-in for the NVIDIA driver's management library: just enough of its ABI for pynvml, with moods.
   FAKE_NVML_MOOD: ok, none (no GPU), bare (no utilization, no temperature), lost (fails), hang. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned int gpu, memory; } rates_t;
static int device;
static int is(const char *mood) { const char *m = getenv("FAKE_NVML_MOOD"); return m && !strcmp(m, mood); }

int nvmlInit_v2(void) { return 0; }
int nvmlInitWithFlags(unsigned int f) { (void)f; return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { (void)code; return "GPU is lost"; }
int nvmlSystemGetDriverVersion(char *out, unsigned int n) { strncpy(out, "560.35", n); return 0; }
int nvmlDeviceGetCount_v2(unsigned int *n) {
  if (is("lost")) return 15;
  if (is("hang")) for (;;) sleep(60);
  *n = is("none") ? 0 : 1;
  return 0;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned int i, void **h) { (void)i; *h = &device; return 0; }
int nvmlDeviceGetName(void *h, char *out, unsigned int n) { (void)h; strncpy(out, "GeForce GTX 1650", n); return 0; }
int nvmlDeviceGetMemoryInfo(void *h, memory_t *m) {
  (void)h; m->total = 4294967296ULL; m->free = 3221225472ULL; m->used = 1073741824ULL; return 0;
}
int nvmlDeviceGetUtilizationRates(void *h, rates_t *r) {
  (void)h; if (is("bare")) return 3; r->gpu = 42; r->memory = 7; return 0;
}
int nvmlDeviceGetTemperature(void *h, int kind, unsigned int *t) {
  (void)h; (void)kind; if (is("bare")) return 3; *t = 55; return 0;
}
int nvmlDeviceGetTemperatureV(void *h, void *t) { (void)h; (void)t; return 3; }
