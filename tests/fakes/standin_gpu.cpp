// A GPU that only counts: llama.cpp assigns layers, graphs and caches to it as to a CUDA card, so that a dry run
// (no_alloc) tells how large its buffers would be on a machine that has no card.
//
// Needs the headers of the llama.cpp that llama-cpp-python was built from (its source archive, vendor/llama.cpp):
//   g++ -O1 -shared -fPIC -I$GGML/include -I$GGML/src tests/fakes/standin_gpu.cpp -o libstandin.so
//     -L$LLAMA_CPP/lib -lggml -lggml-base -Wl,-rpath,$LLAMA_CPP/lib
//   python -m tests.local.offload_sizes ./libstandin.so > tests/local/offload_sizes.json
//
// What follows ggml-cuda.cu: the alignment, the padding of quantised rows, which operations are worth copying weights
// for (get_op_batch_size), everything being supported. What does not: memory that its kernels take from pools of their
// own, and what flash attention unpacks.

#include "ggml-backend-impl.h"
#include "ggml-impl.h"

#include <cstdlib>
#include <cstring>

static ggml_backend_device device;
static ggml_backend_reg registry;
static ggml_backend_buffer_type buffer_type;

static const size_t MEMORY = size_t(64) << 30;
static const int64_t WORTH_THE_COPY = 32;  // GGML_OP_OFFLOAD_MIN_BATCH
static const int64_t ROW_PADDING = 512;    // MATRIX_ROW_PADDING
static const char * NAME = "CUDA0";

// buffers: plain memory, which nobody computes with

static void buffer_free(ggml_backend_buffer_t buffer) { free(buffer->context); }
static void * buffer_base(ggml_backend_buffer_t buffer) { return buffer->context; }
static void buffer_clear(ggml_backend_buffer_t buffer, uint8_t value) { memset(buffer->context, value, buffer->size); }
static void buffer_memset(ggml_backend_buffer_t, ggml_tensor * t, uint8_t value, size_t offset, size_t size) {
    memset((char *) t->data + offset, value, size);
}
static void buffer_set(ggml_backend_buffer_t, ggml_tensor * t, const void * data, size_t offset, size_t size) {
    memcpy((char *) t->data + offset, data, size);
}
static void buffer_get(ggml_backend_buffer_t, const ggml_tensor * t, void * data, size_t offset, size_t size) {
    memcpy(data, (const char *) t->data + offset, size);
}

static const char * type_name(ggml_backend_buffer_type_t) { return NAME; }
static size_t type_alignment(ggml_backend_buffer_type_t) { return 128; }
static bool type_is_host(ggml_backend_buffer_type_t) { return false; }
static ggml_backend_buffer_t type_alloc(ggml_backend_buffer_type_t type, size_t size) {
    void * memory = nullptr;
    if (posix_memalign(&memory, 256, size ? size : 256) != 0) {
        return nullptr;
    }
    ggml_backend_buffer_i calls = {};
    calls.free_buffer = buffer_free;
    calls.get_base = buffer_base;
    calls.memset_tensor = buffer_memset;
    calls.set_tensor = buffer_set;
    calls.get_tensor = buffer_get;
    calls.clear = buffer_clear;
    return ggml_backend_buffer_init(type, calls, memory, size);
}
static size_t type_alloc_size(ggml_backend_buffer_type_t, const ggml_tensor * t) {
    const int64_t over = t->ne[0] % ROW_PADDING;
    return ggml_nbytes(t) + (ggml_is_quantized(t->type) && over ? ggml_row_size(t->type, ROW_PADDING - over) : 0);
}

// backend

static const char * backend_name(ggml_backend_t) { return NAME; }
static void backend_free(ggml_backend_t backend) { delete backend; }
static ggml_status backend_compute(ggml_backend_t, ggml_cgraph *) { return GGML_STATUS_FAILED; }

// device

static const char * device_name(ggml_backend_dev_t) { return NAME; }
static void device_memory(ggml_backend_dev_t, size_t * free, size_t * total) { *free = *total = MEMORY; }
static enum ggml_backend_dev_type device_type(ggml_backend_dev_t) { return GGML_BACKEND_DEVICE_TYPE_GPU; }
static void device_props(ggml_backend_dev_t, ggml_backend_dev_props * props) {
    memset(props, 0, sizeof(*props));
    props->name = props->description = NAME;
    props->type = GGML_BACKEND_DEVICE_TYPE_GPU;
    props->memory_free = props->memory_total = MEMORY;
    props->caps.async = props->caps.events = true;
}
static ggml_backend_t device_init(ggml_backend_dev_t dev, const char *) {
    static ggml_guid guid = { 's', 't', 'a', 'n', 'd', 'i', 'n' };
    auto * backend = new ggml_backend();
    backend->guid = &guid;
    backend->iface.get_name = backend_name;
    backend->iface.free = backend_free;
    backend->iface.graph_compute = backend_compute;
    backend->device = dev;
    return backend;
}
static ggml_backend_buffer_type_t device_buffer_type(ggml_backend_dev_t) { return &buffer_type; }
static bool device_supports_op(ggml_backend_dev_t, const ggml_tensor *) { return true; }
static bool device_supports_type(ggml_backend_dev_t, ggml_backend_buffer_type_t type) { return type == &buffer_type; }
static bool device_offloads(ggml_backend_dev_t, const ggml_tensor * op) {
    switch (op->op) {
        case GGML_OP_GET_ROWS:   return false;
        case GGML_OP_MUL_MAT:    return op->ne[1] >= WORTH_THE_COPY;
        case GGML_OP_MUL_MAT_ID:
        case GGML_OP_ROPE:       return op->ne[2] >= WORTH_THE_COPY;
        default:                 return ggml_nrows(op) >= WORTH_THE_COPY;
    }
}

// registry

static const char * registry_name(ggml_backend_reg_t) { return "CUDA"; }
static size_t registry_count(ggml_backend_reg_t) { return 1; }
static ggml_backend_dev_t registry_device(ggml_backend_reg_t, size_t) { return &device; }
static void * registry_address(ggml_backend_reg_t, const char *) { return nullptr; }

extern "C" void standin_register(void) {
    buffer_type = {};
    buffer_type.iface.get_name = type_name;
    buffer_type.iface.alloc_buffer = type_alloc;
    buffer_type.iface.get_alignment = type_alignment;
    buffer_type.iface.get_alloc_size = type_alloc_size;
    buffer_type.iface.is_host = type_is_host;
    buffer_type.device = &device;

    device = {};
    device.iface.get_name = device.iface.get_description = device_name;
    device.iface.get_memory = device_memory;
    device.iface.get_type = device_type;
    device.iface.get_props = device_props;
    device.iface.init_backend = device_init;
    device.iface.get_buffer_type = device_buffer_type;
    device.iface.supports_op = device_supports_op;
    device.iface.supports_buft = device_supports_type;
    device.iface.offload_op = device_offloads;
    device.reg = &registry;

    registry = {};
    registry.api_version = GGML_BACKEND_API_VERSION;
    registry.iface.get_name = registry_name;
    registry.iface.get_device_count = registry_count;
    registry.iface.get_device = registry_device;
    registry.iface.get_proc_address = registry_address;
    ggml_backend_register(&registry);
}
