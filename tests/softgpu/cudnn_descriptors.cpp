// Descriptors of the cuDNN stand-in: what can be set and read, of which type and how often, and
// when they are whole.
#include <stdio.h>

#include <algorithm>

#include "cudnn.h"

using namespace softcudnn;

namespace {

size_t size_of_type(int type) {
    switch (type) {
        case HANDLE:
        case INT64:
        case POINTER:
        case DESCRIPTOR: return 8;
        case BOOLEAN:
        case CHAR: return 1;
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
    {0, POINTWISE, POINTWISE_MODE, 1},
    {1, POINTWISE, DATA, 1},
    {2, POINTWISE, NAN_PROPAGATION, 1, false},
    {100, CONVOLUTION, DATA, 1},
    {101, CONVOLUTION, CONV_MODE, 1},
    {102, CONVOLUTION, INT64, 2},
    {103, CONVOLUTION, INT64, 2},
    {104, CONVOLUTION, INT64, 2},
    {105, CONVOLUTION, INT64, 2},
    {106, CONVOLUTION, INT64, 1},
    {200, ENGINEHEUR, HEUR_MODE, 1},
    {201, ENGINEHEUR, DESCRIPTOR, 1},
    {400, PLAN, HANDLE, 1, false},
    {401, PLAN, DESCRIPTOR, 1, false},
    {405, PLAN, CHAR, 0, false},
    {700, FORWARD, FLOAT32, 1},
    {701, FORWARD, FLOAT32, 1},
    {702, FORWARD, DESCRIPTOR, 1},
    {703, FORWARD, DESCRIPTOR, 1},
    {704, FORWARD, DESCRIPTOR, 1},
    {705, FORWARD, DESCRIPTOR, 1},
    {706, BACKWARD_DATA, FLOAT32, 1},
    {707, BACKWARD_DATA, FLOAT32, 1},
    {708, BACKWARD_DATA, DESCRIPTOR, 1},
    {709, BACKWARD_DATA, DESCRIPTOR, 1},
    {710, BACKWARD_DATA, DESCRIPTOR, 1},
    {711, BACKWARD_DATA, DESCRIPTOR, 1},
    {712, BACKWARD_FILTER, FLOAT32, 1},
    {713, BACKWARD_FILTER, FLOAT32, 1},
    {714, BACKWARD_FILTER, DESCRIPTOR, 1},
    {715, BACKWARD_FILTER, DESCRIPTOR, 1},
    {716, BACKWARD_FILTER, DESCRIPTOR, 1},
    {717, BACKWARD_FILTER, DESCRIPTOR, 1},
    {750, OPERATION_POINTWISE, DESCRIPTOR, 1},
    {751, OPERATION_POINTWISE, DESCRIPTOR, 1},
    {752, OPERATION_POINTWISE, DESCRIPTOR, 1, false},
    {753, OPERATION_POINTWISE, DESCRIPTOR, 1},
    {800, GRAPH, HANDLE, 1},
    {801, GRAPH, DESCRIPTOR, 0},
    {900, TENSOR, INT64, 1},
    {901, TENSOR, DATA, 1},
    {902, TENSOR, INT64, 4},
    {903, TENSOR, INT64, 4},
    {906, TENSOR, INT64, 1},
    {907, TENSOR, BOOLEAN, 1, false},
    {1000, PACK, INT64, 0},
    {1001, PACK, POINTER, 0},
    {1003, PACK, POINTER, 1},
};

// --- reading

template <class T>
Status answer(const std::vector<T>& values, int64_t room, int64_t* count, void* to) {
    if (count) *count = int64_t(values.size());
    if (room > 0 && to && !values.empty())
        memcpy(to, values.data(), sizeof(T) * std::min(size_t(room), values.size()));
    return Success;
}

// An attribute of one element: cuDNN refuses room for more.
template <class T>
Status answer_one(T value, int64_t room, int64_t* count, void* to) {
    if (room != 1)
        return say(BadParam, "room for %lld elements where there is one", (long long)room);
    return answer<T>({value}, room, count, to);
}

// Fills descriptors that the caller created.
Status answer_engines(const Descriptor& from, const std::vector<Engine>& values, Kind kind,
                      int64_t room, int64_t* count, void* to) {
    if (count) *count = int64_t(values.size());
    for (int64_t i = 0; to && i < room && i < int64_t(values.size()); ++i) {
        Descriptor* d = static_cast<Descriptor**>(to)[i];
        if (!lives(d) || d->kind != kind || d->finalized) {
            return say(BadParam, "reading into a descriptor that is not a fresh one of kind %d",
                       kind);
        }
        d->finalized = true;
        d->program = from.program;
        d->engine = values[size_t(i)];
    }
    return Success;
}

}  // namespace

API int cudnnBackendCreateDescriptor(int kind, Descriptor** descriptor) {
    *descriptor = new Descriptor{Kind(kind)};
    is_born(*descriptor);
    return Success;
}

API int cudnnBackendDestroyDescriptor(Descriptor* descriptor) {
    if (!lives(descriptor)) return say(BadParam, "destroying what is no descriptor");
    dies(descriptor);
    unload(*descriptor);
    delete descriptor;
    return Success;
}

API int cudnnBackendSetAttribute(Descriptor* d, int name, int type, int64_t count,
                                 const void* values) {
    if (!lives(d) || !values) return say(BadParam, "setting an attribute of what is no descriptor");
    if (d->finalized) return say(BadParam, "attribute %d is set after finalizing", name);
    for (const Rule& rule : RULES) {
        if (rule.name != name || rule.kind != d->kind) continue;
        if (rule.type != type)
            return say(BadParam, "attribute %d is of type %d, not %d", name, rule.type, type);
        if (count < 1 || (rule.count && count != rule.count)) {
            return say(BadParam, "attribute %d has %lld elements", name, (long long)count);
        }
        for (int64_t i = 0; type == DESCRIPTOR && i < count; ++i) {
            const Descriptor* part = static_cast<Descriptor* const*>(values)[i];
            if (!lives(part))
                return say(BadParam, "attribute %d refers to what is no descriptor", name);
            if (!part->finalized)
                return say(NotFinalized,
                           "attribute %d refers to a descriptor that is not finalized", name);
        }
        if (type == HANDLE && !lives(*static_cast<void* const*>(values))) {
            return say(BadParam, "attribute %d refers to no handle", name);
        }
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
        if (rule.required && !d->values.count(rule.name))
            return say(BadParam, "attribute %d of kind %d is not set", rule.name, rule.kind);
        if (rule.type != DESCRIPTOR) continue;
        for (const Descriptor* part : d->all<Descriptor*>(rule.name)) {
            if (!lives(part))
                return say(BadParam, "attribute %d refers to a descriptor that was destroyed",
                           rule.name);
        }
    }
    if (lists(refused_here(), "sublibrary")) {
        fprintf(stderr, "Unable to load any of {libcudnn_engines_runtime_compiled.so.9.10.0}\n");
        return say(SublibraryLoadingFailed, "ptrDesc->finalize()");
    }
    Status status = Success;
    switch (d->kind) {
        case FORWARD:
        case BACKWARD_DATA:
        case BACKWARD_FILTER: status = check_convolution(*d); break;
        case GRAPH: status = compile(*d); break;
        case ENGINEHEUR:
            d->program = d->part(201).program;
            softcudnn::count(&Counts::heuristics);
            if (refuses(*d->program, "heuristics"))
                status = say(InternalError, "heuristics_query()");
            break;
        case PLAN: status = build(*d); break;
        case PACK:
            if (d->all<int64_t>(1000).size() != d->all<void*>(1001).size())
                status = say(BadParam, "as many ids as pointers");
            break;
        default: break;
    }
    d->finalized = status == Success;
    return status;
}

API int cudnnBackendGetAttribute(Descriptor* d, int name, int type, int64_t room, int64_t* count,
                                 void* to) {
    if (!lives(d)) return say(BadParam, "reading what is no descriptor");
    if (!d->finalized) return say(NotFinalized, "reading a descriptor that is not finalized");
    const auto is = [&](Kind kind, int n, Type t) {
        return d->kind == kind && name == n && type == t;
    };
    if (is(ENGINEHEUR, 202, DESCRIPTOR)) {
        const Status status =
            answer_engines(*d, engines(*d->program, d->one<int>(200)), ENGINECFG, room, count, to);
        // Asked for the number alone, cuDNN counts what it has not yet checked: fewer come.
        if (room == 0 && count) *count += 3;
        return status;
    }
    if (is(ENGINECFG, 300, DESCRIPTOR))
        return answer_engines(*d, {d->engine}, ENGINE, room, count, to);
    if (is(ENGINECFG, 302, DESCRIPTOR))
        return answer_engines(*d, {d->engine}, KNOB_CHOICE, room, count, to);
    if (is(ENGINE, 1301, INT64)) return answer_one<int64_t>(d->engine.index, room, count, to);
    if (is(ENGINE, 1303, NUMERICAL_NOTE))
        return answer(numerical_notes(*d->program, d->engine), room, count, to);
    if (is(ENGINE, 1305, BEHAVIOR_NOTE))
        return answer(behavior_notes(*d->program, d->engine), room, count, to);
    if (is(KNOB_CHOICE, 600, KNOB_TYPE)) return answer_one<int>(2, room, count, to);
    if (is(KNOB_CHOICE, 601, INT64)) return answer_one<int64_t>(d->engine.knob, room, count, to);
    if (is(PLAN, 402, INT64))
        return answer_one<int64_t>(int64_t(workspace_of(*d->program, d->engine)), room, count, to);
    if (is(PLAN, 405, CHAR)) {
        const std::string text = json_of(*d);
        if (room && room < int64_t(text.size()))
            return say(SizeInsufficient, "room for %lld bytes of a text", (long long)room);
        return answer(std::vector<char>(text.begin(), text.end()), room, count, to);
    }
    return say(BadParam, "descriptors of kind %d have no attribute %d of type %d to read", d->kind,
               name, type);
}
