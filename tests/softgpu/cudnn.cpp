// cuDNN 9's graph API on the software GPU: what the engine calls, with the checks that cuDNN makes.
//
// A graph is one convolution with a chain of additions and a ReLU behind it. Engines of every graph, as mode A lists them:
//   7  is offered, but cannot be built;
//   2  f32 only: rounds its inputs and says so;
//   1  wants a workspace, which it overwrites; gradients of it are marked as not deterministic;
//   0  wants nothing; with another knob in the fallback list.
//
// Environment: SOFTCUDNN_VERSION (91000), SOFTCUDNN_REFUSE (a list of: fused, beta, narrowdw, all). softcudnn_set sets the same for
// the calling thread.
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "cudnn_loops.h"

#define API extern "C" __attribute__((visibility("default")))

extern "C" int softgpu_submit(void* stream, void (*function)(void*), void* arg, void (*drop)(void*));

using namespace softcudnn;

namespace {

enum Status : int { Success = 0, BadParam = 2000, NotFinalized = 2004, NotSupported = 3000, ExecutionFailed = 5000 };

enum Kind : int {
    POINTWISE = 0, CONVOLUTION = 1, ENGINE = 2, ENGINECFG = 3, ENGINEHEUR = 4, PLAN = 5, KNOB_CHOICE = 7,
    FORWARD = 10, BACKWARD_FILTER = 11, BACKWARD_DATA = 12, OPERATION_POINTWISE = 13, GRAPH = 15, PACK = 16, TENSOR = 17,
};

enum Type : int {
    HANDLE = 0, DATA = 1, BOOLEAN = 2, INT64 = 3, FLOAT32 = 4, POINTER = 6, CONV_MODE = 7, HEUR_MODE = 8, KNOB_TYPE = 9,
    NAN_PROPAGATION = 10,
    NOTE = 11, POINTWISE_MODE = 14, DESCRIPTOR = 15,
};

size_t size_of_type(int type) {
    switch (type) {
        case HANDLE: case INT64: case POINTER: case DESCRIPTOR: return 8;
        case BOOLEAN: return 1;
        default: return 4;
    }
}

// What can be set: of what, as what, how many (0: any number), whether it must be.
struct Rule {
    int name;
    Kind kind;
    Type type;
    int64_t count;
    bool required = true;
};
constexpr Rule RULES[] = {
    {0, POINTWISE, POINTWISE_MODE, 1}, {1, POINTWISE, DATA, 1}, {2, POINTWISE, NAN_PROPAGATION, 1, false},
    {100, CONVOLUTION, DATA, 1}, {101, CONVOLUTION, CONV_MODE, 1}, {102, CONVOLUTION, INT64, 2}, {103, CONVOLUTION, INT64, 2},
    {104, CONVOLUTION, INT64, 2}, {105, CONVOLUTION, INT64, 2}, {106, CONVOLUTION, INT64, 1},
    {200, ENGINEHEUR, HEUR_MODE, 1}, {201, ENGINEHEUR, DESCRIPTOR, 1},
    {400, PLAN, HANDLE, 1}, {401, PLAN, DESCRIPTOR, 1},
    {700, FORWARD, FLOAT32, 1}, {701, FORWARD, FLOAT32, 1}, {702, FORWARD, DESCRIPTOR, 1}, {703, FORWARD, DESCRIPTOR, 1},
    {704, FORWARD, DESCRIPTOR, 1}, {705, FORWARD, DESCRIPTOR, 1},
    {706, BACKWARD_DATA, FLOAT32, 1}, {707, BACKWARD_DATA, FLOAT32, 1}, {708, BACKWARD_DATA, DESCRIPTOR, 1},
    {709, BACKWARD_DATA, DESCRIPTOR, 1}, {710, BACKWARD_DATA, DESCRIPTOR, 1}, {711, BACKWARD_DATA, DESCRIPTOR, 1},
    {712, BACKWARD_FILTER, FLOAT32, 1}, {713, BACKWARD_FILTER, FLOAT32, 1}, {714, BACKWARD_FILTER, DESCRIPTOR, 1},
    {715, BACKWARD_FILTER, DESCRIPTOR, 1}, {716, BACKWARD_FILTER, DESCRIPTOR, 1}, {717, BACKWARD_FILTER, DESCRIPTOR, 1},
    {750, OPERATION_POINTWISE, DESCRIPTOR, 1}, {751, OPERATION_POINTWISE, DESCRIPTOR, 1},
    {752, OPERATION_POINTWISE, DESCRIPTOR, 1, false}, {753, OPERATION_POINTWISE, DESCRIPTOR, 1},
    {800, GRAPH, HANDLE, 1}, {801, GRAPH, DESCRIPTOR, 0},
    {900, TENSOR, INT64, 1}, {901, TENSOR, DATA, 1}, {902, TENSOR, INT64, 4}, {903, TENSOR, INT64, 4}, {906, TENSOR, INT64, 1},
    {907, TENSOR, BOOLEAN, 1, false},
    {1000, PACK, INT64, 0}, {1001, PACK, POINTER, 0}, {1003, PACK, POINTER, 1},
};

struct Handle {
    void* stream = nullptr;
};

// What a finalized graph computes, and which ids its tensors have (0: not there).
struct Program {
    Problem problem;
    int64_t x = 0, w = 0, y = 0, bias = 0, residual = 0;
    std::map<int64_t, int64_t> alignments;
    bool beta = false, fused = false;
};

struct Engine {
    int64_t index, knob;
};

struct Descriptor {
    Kind kind;
    bool finalized = false;
    std::map<int, std::vector<char>> values;
    std::shared_ptr<Program> program;  // of a graph, and of what is made from it
    Engine engine{};                   // of ENGINE, ENGINECFG, KNOB_CHOICE and PLAN

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

std::mutex mutex;
std::set<const void*>& living() {
    static auto* set = new std::set<const void*>;
    return *set;
}
bool lives(const void* p) {
    const std::lock_guard<std::mutex> lock(mutex);
    return living().count(p);
}

thread_local std::string last_error, thread_refuses;
thread_local size_t thread_version = 0;

Status say(Status status, const char* format, ...) __attribute__((format(printf, 2, 3)));
Status say(Status status, const char* format, ...) {
    char text[400];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    last_error = text;
    // What is not supported is an answer; the rest is a mistake of the caller.
    if (status != NotSupported) fprintf(stderr, "software cuDNN: %s\n", text);
    return status;
}

bool refuses(const char* what) {
    const char* environment = getenv("SOFTCUDNN_REFUSE");
    const std::string list = "," + thread_refuses + "," + (environment ? environment : "") + ",";
    return list.find(std::string(",") + what + ",") != std::string::npos;
}

// --- graphs

Status tensor_is_nhwc(const Descriptor& t) {
    const auto d = t.all<int64_t>(902), s = t.all<int64_t>(903);
    for (const int64_t v : d) {
        if (v <= 0) return say(BadParam, "a dimension is %lld", (long long)v);
    }
    if (s[3] != d[1] || s[2] != d[3] * d[1] || s[0] != d[2] * d[3] * d[1] || s[1] != 1) {
        return say(NotSupported, "strides are not those of a packed NHWC tensor");
    }
    const int type = t.one<int>(901);
    if (type != FLOAT && type != HALF && type != BFLOAT16) return say(NotSupported, "data type %d", type);
    const int64_t alignment = t.one<int64_t>(900);
    if (alignment < 1 || alignment & (alignment - 1) || alignment % (type == FLOAT ? 4 : 2)) return say(BadParam, "alignment of %lld", (long long)alignment);
    return Success;
}

// Attribute names of a convolution's parts.
struct Names {
    Direction direction;
    int alpha, beta, conv, w, x, y;
};
const Names* names_of(Kind kind) {
    static const Names FORWARD_NAMES{Direction::Forward, 700, 701, 702, 703, 704, 705};
    static const Names DATA_NAMES{Direction::BackwardData, 706, 707, 708, 709, 710, 711};
    static const Names FILTER_NAMES{Direction::BackwardWeight, 712, 713, 714, 715, 716, 717};
    return kind == FORWARD ? &FORWARD_NAMES : kind == BACKWARD_DATA ? &DATA_NAMES : kind == BACKWARD_FILTER ? &FILTER_NAMES : nullptr;
}

Status check_convolution(const Descriptor& op) {
    const Names& names = *names_of(op.kind);
    const auto x = op.part(names.x).all<int64_t>(902), w = op.part(names.w).all<int64_t>(902);
    const auto y = op.part(names.y).all<int64_t>(902);
    const Descriptor& conv = op.part(names.conv);
    const auto pre = conv.all<int64_t>(105), post = conv.all<int64_t>(104), stride = conv.all<int64_t>(103);
    const auto dilation = conv.all<int64_t>(102);
    if (conv.one<int64_t>(106) != 2) return say(BadParam, "a convolution of 4-dimensional tensors has 2 spatial dimensions");
    if (dilation[0] != 1 || dilation[1] != 1 || stride[0] != stride[1] || pre != post || pre[0] != pre[1]) {
        return say(NotSupported, "only square strides and paddings without dilation");
    }
    if (x[0] != y[0] || x[1] != w[1] || w[0] != y[1]) return say(BadParam, "images or channels of x, w and y differ");
    for (int i = 2; i < 4; ++i) {
        if (y[i] != (x[i] + pre[i - 2] + post[i - 2] - w[i]) / stride[i - 2] + 1) {
            return say(BadParam, "y has %lld pixels in dimension %d, x and w make another number", (long long)y[i], i);
        }
    }
    return Success;
}

Status compile(Descriptor& graph) {
    const auto ops = graph.all<Descriptor*>(801);
    const Names* names = names_of(ops[0]->kind);
    if (!names) return say(NotSupported, "a graph that does not begin with a convolution");
    const Descriptor& conv = *ops[0];
    const Descriptor &x = conv.part(names->x), &w = conv.part(names->w);
    const Descriptor* y = &conv.part(names->y);
    const auto xd = x.all<int64_t>(902), wd = w.all<int64_t>(902), yd = y->all<int64_t>(902);
    auto program = std::make_shared<Program>();
    Problem& p = program->problem;
    p.direction = names->direction;
    p.n = xd[0], p.c = xd[1], p.h = xd[2], p.w = xd[3];
    p.k = wd[0], p.r = wd[2], p.s = wd[3], p.p = yd[2], p.q = yd[3];
    p.stride = conv.part(names->conv).all<int64_t>(103)[0], p.pad = conv.part(names->conv).all<int64_t>(105)[0];
    if (conv.part(names->conv).one<int>(100) != FLOAT) return say(NotSupported, "compute types other than f32");
    if (conv.part(names->conv).one<int>(101) != 1) return say(NotSupported, "true convolution: only cross-correlation");
    if (conv.one<float>(names->alpha) != 1) return say(NotSupported, "alpha is not 1");
    const float beta = conv.one<float>(names->beta);
    if (beta != 0 && (beta != 1 || names->direction == Direction::Forward)) return say(NotSupported, "beta is %g", beta);
    p.accumulate = program->beta = beta == 1;
    std::set<const Descriptor*> tensors{&x, &w, y};
    for (size_t i = 1; i < ops.size(); ++i) {
        const Descriptor& op = *ops[i];
        if (op.kind != OPERATION_POINTWISE || names->direction != Direction::Forward) return say(NotSupported, "this pattern of operations");
        if (&op.part(751) != y) return say(NotSupported, "a chain whose operations do not follow each other");
        if (!y->one<unsigned char>(907)) return say(NotSupported, "intermediate results are virtual");
        if (y->one<int>(901) != FLOAT || op.part(750).one<int>(1) != FLOAT) return say(NotSupported, "epilogues in f32 only");
        const int mode = op.part(750).one<int>(0);
        const Descriptor* b = op.one<Descriptor*>(752);
        if (mode == 100 && !b && !p.relu) {
            p.relu = true, p.keeps_nan = op.part(750).one<int>(2) == 1;
        } else if (mode == 0 && b && !p.relu) {
            const auto bd = b->all<int64_t>(902);
            const bool row = bd == std::vector<int64_t>{1, yd[1], 1, 1};
            if (row && !p.bias && b->one<int>(901) == FLOAT) {
                p.bias = true, program->bias = b->one<int64_t>(906);
            } else if (!row && bd == yd && !p.residual) {
                p.residual = true, program->residual = b->one<int64_t>(906);
            } else {
                return say(NotSupported, "this operand of an addition");
            }
            tensors.insert(b);
        } else {
            return say(NotSupported, "this pattern of pointwise operations");
        }
        y = &op.part(753);
        tensors.insert(y);
        if (y->all<int64_t>(902) != yd) return say(BadParam, "a pointwise operation that changes shapes");
    }
    if (y->one<unsigned char>(907) || x.one<unsigned char>(907) || w.one<unsigned char>(907)) return say(BadParam, "a graph's inputs and output are not virtual");
    std::set<int64_t> ids;
    for (const Descriptor* t : tensors) {
        if (const Status bad = tensor_is_nhwc(*t)) return bad;
        const int64_t id = t->one<int64_t>(906);
        if (!ids.insert(id).second) return say(BadParam, "two tensors have the id %lld", (long long)id);
        if (!t->one<unsigned char>(907)) program->alignments[id] = t->one<int64_t>(900);
    }
    p.x_type = Data(x.one<int>(901)), p.w_type = Data(w.one<int>(901)), p.y_type = Data(y->one<int>(901));
    program->x = x.one<int64_t>(906), program->w = w.one<int64_t>(906), program->y = y->one<int64_t>(906);
    program->fused = ops.size() > 1;
    if (p.x_type != p.y_type) return say(NotSupported, "x and y of different types");
    if (p.w_type != p.x_type && !(names->direction == Direction::BackwardWeight && p.w_type == FLOAT)) return say(NotSupported, "w of another type than x");
    graph.program = program;
    return Success;
}

// --- engines

Status supports(const Program& program) {
    const Problem& p = program.problem;
    if (refuses("all")) return say(NotSupported, "all is refused");
    if (program.fused && (p.c % 8 || p.k % 8)) return say(NotSupported, "fusion with channels that are no multiples of 8");
    if (program.fused && refuses("fused")) return say(NotSupported, "fused graphs are refused");
    if (program.beta && refuses("beta")) return say(NotSupported, "beta is refused");
    if (p.w_type != p.x_type && program.beta) return say(NotSupported, "no engine adds to gradients of another type");
    if (p.direction == Direction::BackwardWeight && p.w_type != FLOAT && refuses("narrowdw")) return say(NotSupported, "gradients of weights in less than f32 are refused");
    return Success;
}

std::vector<Engine> engines(const Program& program, int mode) {
    constexpr int B = 1, A = 3;
    // Gradients of another type than the inputs' are known to the fallback list alone.
    if (mode != B && mode != A) return {{0, 5}};
    if (program.problem.w_type != program.problem.x_type) return {};
    if (mode == B) return {{0, 4}};
    std::vector<Engine> found{{7, 0}};
    if (program.problem.x_type == FLOAT) found.push_back({2, 4});
    found.insert(found.end(), {{1, 4}, {0, 4}});
    return found;
}

// cudnnBackendNumericalNote_t
std::vector<int> notes(const Descriptor& engine) {
    constexpr int TENSOR_CORE = 0, DOWN_CONVERT_INPUTS = 1, NONDETERMINISTIC = 4;
    if (engine.engine.index == 2) return {TENSOR_CORE, DOWN_CONVERT_INPUTS};
    if (engine.engine.index == 1 && engine.program->problem.direction != Direction::Forward) return {NONDETERMINISTIC};
    return {};
}

size_t workspace_of(const Descriptor& plan) { return plan.engine.index == 1 ? 1000 + 8 * plan.program->problem.k : 0; }

// --- reading

template <class T>
Status answer(const std::vector<T>& values, int64_t room, int64_t* count, void* to) {
    if (count) *count = int64_t(values.size());
    if (room > 0 && to && !values.empty()) memcpy(to, values.data(), sizeof(T) * std::min(size_t(room), values.size()));
    return Success;
}

// An attribute of one element: cuDNN refuses room for more.
template <class T>
Status answer_one(T value, int64_t room, int64_t* count, void* to) {
    if (room != 1) return say(BadParam, "room for %lld elements where there is one", (long long)room);
    return answer<T>({value}, room, count, to);
}

// Fills descriptors that the caller created.
Status answer_engines(const Descriptor& from, const std::vector<Engine>& values, Kind kind, int64_t room, int64_t* count, void* to) {
    if (count) *count = int64_t(values.size());
    for (int64_t i = 0; to && i < room && i < int64_t(values.size()); ++i) {
        Descriptor* d = static_cast<Descriptor**>(to)[i];
        if (!lives(d) || d->kind != kind || d->finalized) return say(BadParam, "reading into a descriptor that is not a fresh one of kind %d", kind);
        d->finalized = true;
        d->program = from.program;
        d->engine = values[size_t(i)];
    }
    return Success;
}

// --- running

struct Job {
    Problem problem;
    Pointers at;
    void* workspace;
    size_t workspace_bytes;
};

void run(void* argument) {
    const Job& job = *static_cast<Job*>(argument);
    // Before and after: what overlaps the workspace is spoilt, be it read or written.
    if (job.workspace_bytes) memset(job.workspace, 0xFF, job.workspace_bytes);
    convolve(job.problem, job.at);
    if (job.workspace_bytes) memset(job.workspace, 0xFF, job.workspace_bytes);
}

}  // namespace

API void softcudnn_set(const char* refuse, size_t version) {
    thread_refuses = refuse;
    thread_version = version;
}

API size_t cudnnGetVersion() {
    const char* text = getenv("SOFTCUDNN_VERSION");
    return thread_version ? thread_version : text ? size_t(atol(text)) : 91000;
}

API void cudnnGetLastErrorString(char* to, size_t size) { snprintf(to, size, "%s", last_error.c_str()); }

API int cudnnCreate(Handle** handle) {
    *handle = new Handle;
    const std::lock_guard<std::mutex> lock(mutex);
    living().insert(*handle);
    return Success;
}

API int cudnnDestroy(Handle* handle) {
    if (!lives(handle)) return say(BadParam, "cudnnDestroy of what is no handle");
    const std::lock_guard<std::mutex> lock(mutex);
    living().erase(handle);
    delete handle;
    return Success;
}

API int cudnnSetStream(Handle* handle, void* stream) {
    if (!lives(handle)) return say(BadParam, "cudnnSetStream of what is no handle");
    handle->stream = stream;
    return Success;
}

API int cudnnBackendCreateDescriptor(int kind, Descriptor** descriptor) {
    *descriptor = new Descriptor{Kind(kind), false, {}, {}, {}};
    const std::lock_guard<std::mutex> lock(mutex);
    living().insert(*descriptor);
    return Success;
}

API int cudnnBackendDestroyDescriptor(Descriptor* descriptor) {
    if (!lives(descriptor)) return say(BadParam, "destroying what is no descriptor");
    const std::lock_guard<std::mutex> lock(mutex);
    living().erase(descriptor);
    delete descriptor;
    return Success;
}

API int cudnnBackendSetAttribute(Descriptor* d, int name, int type, int64_t count, const void* values) {
    if (!lives(d) || !values) return say(BadParam, "setting an attribute of what is no descriptor");
    if (d->finalized) return say(BadParam, "attribute %d is set after finalizing", name);
    for (const Rule& rule : RULES) {
        if (rule.name != name || rule.kind != d->kind) continue;
        if (rule.type != type) return say(BadParam, "attribute %d is of type %d, not %d", name, rule.type, type);
        if (count < 1 || (rule.count && count != rule.count)) return say(BadParam, "attribute %d has %lld elements", name, (long long)count);
        for (int64_t i = 0; type == DESCRIPTOR && i < count; ++i) {
            const Descriptor* part = static_cast<Descriptor* const*>(values)[i];
            if (!lives(part)) return say(BadParam, "attribute %d refers to what is no descriptor", name);
            if (!part->finalized) return say(NotFinalized, "attribute %d refers to a descriptor that is not finalized", name);
        }
        if (type == HANDLE && !lives(*static_cast<void* const*>(values))) return say(BadParam, "attribute %d refers to no handle", name);
        const char* bytes = static_cast<const char*>(values);
        d->values[name].assign(bytes, bytes + size_t(count) * size_of_type(type));
        return Success;
    }
    return say(BadParam, "descriptors of kind %d have no attribute %d", d->kind, name);
}

API int cudnnBackendFinalize(Descriptor* d) {
    if (!lives(d)) return say(BadParam, "finalizing what is no descriptor");
    if (d->finalized) return say(BadParam, "finalizing twice");
    for (const Rule& rule : RULES) {
        if (rule.kind != d->kind) continue;
        if (rule.required && !d->values.count(rule.name)) return say(BadParam, "attribute %d of kind %d is not set", rule.name, rule.kind);
        if (rule.type != DESCRIPTOR) continue;
        for (const Descriptor* part : d->all<Descriptor*>(rule.name)) {
            if (!lives(part)) return say(BadParam, "attribute %d refers to a descriptor that was destroyed", rule.name);
        }
    }
    Status status = Success;
    switch (d->kind) {
        case FORWARD: case BACKWARD_DATA: case BACKWARD_FILTER: status = check_convolution(*d); break;
        case GRAPH: status = compile(*d); break;
        case ENGINEHEUR:
            d->program = d->part(201).program;
            status = supports(*d->program);
            break;
        case PLAN:
            d->program = d->part(401).program;
            d->engine = d->part(401).engine;
            status = d->engine.index == 7 ? say(NotSupported, "engine 7 never runs") : supports(*d->program);
            break;
        case PACK:
            if (d->all<int64_t>(1000).size() != d->all<void*>(1001).size()) status = say(BadParam, "as many ids as pointers");
            break;
        default: break;
    }
    d->finalized = status == Success;
    return status;
}

API int cudnnBackendGetAttribute(Descriptor* d, int name, int type, int64_t room, int64_t* count, void* to) {
    if (!lives(d)) return say(BadParam, "reading what is no descriptor");
    if (!d->finalized) return say(NotFinalized, "reading a descriptor that is not finalized");
    const auto is = [&](Kind kind, int n, Type t) { return d->kind == kind && name == n && type == t; };
    if (is(ENGINEHEUR, 202, DESCRIPTOR)) {
        const Status status = answer_engines(*d, engines(*d->program, d->one<int>(200)), ENGINECFG, room, count, to);
        // Asked for the number alone, cuDNN counts what it has not yet checked: fewer come.
        if (room == 0 && count) *count += 3;
        return status;
    }
    if (is(ENGINECFG, 300, DESCRIPTOR)) return answer_engines(*d, {d->engine}, ENGINE, room, count, to);
    if (is(ENGINECFG, 302, DESCRIPTOR)) return answer_engines(*d, {d->engine}, KNOB_CHOICE, room, count, to);
    if (is(ENGINE, 1301, INT64)) return answer_one<int64_t>(d->engine.index, room, count, to);
    if (is(ENGINE, 1303, NOTE)) return answer(notes(*d), room, count, to);
    if (is(KNOB_CHOICE, 600, KNOB_TYPE)) return answer_one<int>(2, room, count, to);
    if (is(KNOB_CHOICE, 601, INT64)) return answer_one<int64_t>(d->engine.knob, room, count, to);
    if (is(PLAN, 402, INT64)) return answer_one<int64_t>(int64_t(workspace_of(*d)), room, count, to);
    return say(BadParam, "descriptors of kind %d have no attribute %d of type %d to read", d->kind, name, type);
}

API int cudnnBackendExecute(Handle* handle, Descriptor* plan, Descriptor* pack) {
    if (!lives(handle) || !lives(plan) || !lives(pack)) return say(BadParam, "executing what does not live");
    if (!plan->finalized || !pack->finalized || plan->kind != PLAN || pack->kind != PACK) return say(BadParam, "executing needs a plan and a pack");
    const Program& program = *plan->program;
    const auto ids = pack->all<int64_t>(1000);
    const auto pointers = pack->all<void*>(1001);
    Status status = Success;
    const auto find = [&](int64_t id) -> void* {
        if (!id) return nullptr;
        for (size_t i = 0; i < ids.size(); ++i) {
            if (ids[i] != id) continue;
            if (!pointers[i]) status = say(BadParam, "tensor %lld is at 0", (long long)id);
            if (reinterpret_cast<uintptr_t>(pointers[i]) % size_t(program.alignments.at(id))) status = say(BadParam, "tensor %lld is misaligned", (long long)id);
            return pointers[i];
        }
        status = say(BadParam, "tensor %lld is not in the pack", (long long)id);
        return nullptr;
    };
    Job job{program.problem, {}, pack->one<void*>(1003), workspace_of(*plan)};
    job.problem.rounds_inputs = plan->engine.index == 2;
    job.at = {find(program.x), find(program.w), find(program.y), find(program.bias), find(program.residual)};
    if (job.workspace_bytes && !job.workspace) status = say(BadParam, "the plan wants a workspace");
    if (reinterpret_cast<uintptr_t>(job.workspace) % 128) status = say(BadParam, "the workspace is misaligned");
    if (status) return status;
    const int queued = softgpu_submit(handle->stream, run, new Job(job), [](void* p) { delete static_cast<Job*>(p); });
    return queued ? say(ExecutionFailed, "the stream refused: CUDA error %d", queued) : Success;
}
