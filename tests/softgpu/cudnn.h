// What the files of the cuDNN stand-in share: descriptors, what a graph computes, and which engines
// there are for it.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "cudnn_loops.h"

#define API extern "C" __attribute__((visibility("default")))

namespace softcudnn {

// cudnnStatus_t.
enum Status : int {
    Success = 0,
    SublibraryVersionMismatch = 1002,
    SublibraryLoadingFailed = 1008,
    BadParam = 2000,
    MisalignedPointer = 2003,
    NotFinalized = 2004,
    SizeInsufficient = 2006,
    NotSupported = 3000,
    RuntimePrerequisiteMissing = 3008,
    InternalError = 4000,
    CompilationFailed = 4001,
    DeviceAllocationFailed = 4004,
    ExecutionFailed = 5000,
    ExecutionFailedCudaDriver = 5001,
};

// cudnnBackendDescriptorType_t.
enum Kind : int {
    POINTWISE = 0,
    CONVOLUTION = 1,
    ENGINE = 2,
    ENGINECFG = 3,
    ENGINEHEUR = 4,
    PLAN = 5,
    KNOB_CHOICE = 7,
    FORWARD = 10,
    BACKWARD_FILTER = 11,
    BACKWARD_DATA = 12,
    OPERATION_POINTWISE = 13,
    GRAPH = 15,
    PACK = 16,
    TENSOR = 17,
};

// cudnnBackendAttributeType_t.
enum Type : int {
    HANDLE = 0,
    DATA = 1,
    BOOLEAN = 2,
    INT64 = 3,
    FLOAT32 = 4,
    POINTER = 6,
    CONV_MODE = 7,
    HEUR_MODE = 8,
    KNOB_TYPE = 9,
    NAN_PROPAGATION = 10,
    NUMERICAL_NOTE = 11,
    POINTWISE_MODE = 14,
    DESCRIPTOR = 15,
    BEHAVIOR_NOTE = 19,
    CHAR = 24,
};

struct Handle {
    void* stream = nullptr;
};

// A tensor of a graph that its caller hands in. The id is 0 where the graph has none.
struct Operand {
    int64_t id = 0, alignment = 1;
};

// What a finalized graph computes.
struct Program {
    Problem problem;
    Operand x, w, y, bias, residual;
    bool fused = false;
    bool compiled = false;  // at run time: no engine of the library has a kernel for it
    std::string refused;    // what `refuses` looks at: see there

    // Gradients of weights in f32 from narrower inputs.
    bool wide() const { return problem.w_type != problem.x_type; }
};

// An engine with its only knob set.
struct Engine {
    int64_t index = 0, knob = 0;

    std::string tag() const;  // as the caller of the library writes it
};

struct Descriptor {
    Kind kind;
    bool finalized = false;
    std::map<int, std::vector<char>> values{};
    std::shared_ptr<Program> program{};  // of a graph, and of what is made from it
    Engine engine{};                     // of ENGINE, ENGINECFG, KNOB_CHOICE and PLAN
    bool loaded = false;                 // of a PLAN: it ran before
    bool damaged = false;                // of a PLAN: its text had another kernel
    mutable bool spent = false;          // of an ENGINECFG: a kernel was compiled for it

    template <class T>
    std::vector<T> all(int name) const {
        const auto found = values.find(name);
        if (found == values.end()) return {};
        std::vector<T> out(found->second.size() / sizeof(T));
        memcpy(out.data(), found->second.data(), found->second.size());
        return out;
    }
    template <class T>
    T one(int name) const {
        const auto found = all<T>(name);
        return found.empty() ? T{} : found[0];
    }
    const Descriptor& part(int name) const { return *one<Descriptor*>(name); }
};

// --- cudnn.cpp: the library's state

bool lives(const void* handle_or_descriptor);
void is_born(const void* handle_or_descriptor);
void dies(const void* handle_or_descriptor);
// Gives back the device memory of a plan's code.
void unload(const Descriptor& plan);

// Keeps the text for cudnnGetLastErrorString. A mistake of the caller is printed as well; an answer
// is not.
Status say(Status status, const char* format, ...) __attribute__((format(printf, 2, 3)));

// SOFTCUDNN_REFUSE and what softcudnn_set says on this thread. A graph keeps it, for other threads
// may build its plans.
std::string refused_here();
bool lists(const std::string& list, const std::string& what);
inline bool refuses(const Program& program, const std::string& what) {
    return lists(program.refused, what);
}
// SOFTCUDNN_ACCEPT.
bool accepts(const char* what);

struct Counts {
    size_t heuristics, plans, plans_json, executes;
};
void count(size_t Counts::* what);

// --- cudnn_graph.cpp

Status check_convolution(const Descriptor& operation);
// Fills graph.program.
Status compile(Descriptor& graph);

// --- cudnn_engines.cpp

// What a heuristic mode lists, best first. Where it lists nothing, the last error says why.
std::vector<Engine> engines(const Program& program, int mode);
std::vector<int> numerical_notes(const Program& program, Engine engine);
std::vector<int> behavior_notes(const Program& program, Engine engine);
bool rounds_inputs(Engine engine);
size_t workspace_of(const Program& program, Engine engine);
// On the virtual device's clock.
double microseconds(const Program& program, Engine engine);
// Where this run of the engine cuts its sums in two, as a share of their length.
double cut(const Program& program, Engine engine);

// Finalizes a plan that an engine configuration, or else a text, was set for.
Status build(Descriptor& plan);
std::string json_of(const Descriptor& plan);

}  // namespace softcudnn
