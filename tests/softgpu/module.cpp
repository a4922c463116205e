// Modules, kernels and launches of the driver API. Modules are empty: kernels are found by name in
// one table.
#include <map>

#include "queue.h"

namespace softgpu {

namespace {

// What the driver takes for a kernel.
constexpr size_t KERNEL_BYTES = 2 << 20;

struct Module;

struct Function : Handle {
    Function(Module& module, Kernel* kernel);

    Module& module;
    Kernel* const kernel;
    // Bytes of dynamic shared memory that cuFuncSetAttribute allowed.
    size_t allowed = 0;
};

struct Module : Handle {
    explicit Module(Context& context) : Handle(MODULE, context) {}

    std::map<Kernel*, Function*> functions;
};

Function::Function(Module& module, Kernel* kernel)
    : Handle(FUNCTION, module.context), module(module), kernel(kernel) {}

// A kernel is loaded where it is first launched, which takes memory and must not happen in a
// capture.
Result load(Function& function, Stream& stream) {
    Context& context = function.context;
    if (context.loaded.count(function.kernel)) return Success;
    if (stream.capture) {
        complain("%s: first launched in a capture, where it cannot be loaded",
                 function.kernel->entry.name);
        stream.capture->broken = true;
        return CaptureUnsupported;
    }
    if (!charge(context, KERNEL_BYTES)) return OutOfMemory;
    context.loaded.insert(function.kernel);
    return Success;
}

}  // namespace

}  // namespace softgpu

using namespace softgpu;

API cuModuleLoadData(Module** module, const void* image) {
    ENTER("cuModuleLoadData");
    if (!image) return InvalidValue;
    if (environment("SOFTGPU_BAD_IMAGE", 0)) return NoBinaryForGpu;
    *module = new Module(context);
    return Success;
}

API cuModuleUnload(Module* module) {
    ENTER("cuModuleUnload");
    USE(module, MODULE, "cuModuleUnload");
    for (const auto& [kernel, function] : module->functions) function->destroy();
    module->destroy();
    return Success;
}

API cuModuleGetFunction(Function** function, Module* module, const char* name) {
    ENTER("cuModuleGetFunction");
    USE(module, MODULE, "cuModuleGetFunction");
    Kernel* kernel = find_kernel(name);
    if (!kernel) return NotFound;
    Function*& known = module->functions[kernel];
    if (!known) known = new Function(*module, kernel);
    *function = known;
    return Success;
}

API cuFuncSetAttribute(Function* function, int attribute, int value) {
    constexpr int MAX_DYNAMIC_SHARED = 8;
    ENTER("cuFuncSetAttribute");
    USE(function, FUNCTION, "cuFuncSetAttribute");
    if (attribute != MAX_DYNAMIC_SHARED) return Success;
    const size_t fixed = function->kernel->shared;
    if (value < 0 || size_t(value) + fixed > shared_most()) {
        complain(
            "%s: %d bytes of dynamic and %zu of static shared memory, where a block may have %zu",
            function->kernel->entry.name, value, fixed, shared_most());
        return InvalidValue;
    }
    function->allowed = size_t(value);
    return Success;
}

API cuFuncGetAttribute(int* value, int attribute, Function* function) {
    ENTER("cuFuncGetAttribute");
    USE(function, FUNCTION, "cuFuncGetAttribute");
    switch (attribute) {
        case 0: *value = int(function->kernel->entry.threads); break;
        case 1: *value = int(function->kernel->shared); break;
        case 4: *value = 32; break;  // registers
        case 8: *value = int(function->allowed); break;
        default: *value = 0;
    }
    return Success;
}

API cuLaunchKernel(Function* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                   unsigned by, unsigned bz, unsigned dynamic_bytes, void* handle,
                   void** parameters, void** extra) {
    ENTER("cuLaunchKernel");
    USE(function, FUNCTION, "cuLaunchKernel");
    Stream* stream = stream_of(handle, context, "cuLaunchKernel");
    if (!stream) return InvalidHandle;
    Kernel* kernel = function->kernel;
    if (extra || (!parameters && kernel->entry.count)) return InvalidValue;
    Call call(kernel, {gx, gy, gz}, {bx, by, bz}, dynamic_bytes, parameters);
    // Without cuFuncSetAttribute both kinds together have 48 KiB.
    call.shared_most = dynamic_bytes <= function->allowed ? shared_most() : SHARED_PLAIN;
    if (const Result refused = call.check()) return refused;
    if (const Result refused = load(*function, *stream)) return refused;
    return submit(*stream, [function, call = std::move(call)]() mutable {
        if (function->lives) return call.run();
        complain("%s: its module was unloaded before it ran", function->kernel->entry.name);
        return LaunchFailed;
    });
}

API cuProfilerStart() {
    ENTER("cuProfilerStart");
    return Success;
}
API cuProfilerStop() {
    ENTER("cuProfilerStop");
    return Success;
}
