// What a graph of the cuDNN stand-in may be: one convolution with a chain of additions and a ReLU
// behind it, over NHWC tensors.
#include <set>

#include "cudnn.h"

namespace softcudnn {

namespace {

Status tensor_is_nhwc(const Descriptor& t) {
    const auto d = t.all<int64_t>(902), s = t.all<int64_t>(903);
    for (const int64_t v : d) {
        if (v <= 0) return say(BadParam, "a dimension is %lld", (long long)v);
    }
    if (s[3] != d[1] || s[2] != d[3] * d[1] || s[0] != d[2] * d[3] * d[1] || s[1] != 1) {
        return say(NotSupported, "strides are not those of a packed NHWC tensor");
    }
    const int type = t.one<int>(901);
    if (type != FLOAT && type != HALF && type != BFLOAT16)
        return say(NotSupported, "data type %d", type);
    const int64_t alignment = t.one<int64_t>(900);
    if (alignment < 1 || alignment & (alignment - 1) || alignment % (type == FLOAT ? 4 : 2)) {
        return say(BadParam, "alignment of %lld", (long long)alignment);
    }
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
    return kind == FORWARD           ? &FORWARD_NAMES
           : kind == BACKWARD_DATA   ? &DATA_NAMES
           : kind == BACKWARD_FILTER ? &FILTER_NAMES
                                     : nullptr;
}

Operand operand(const Descriptor& tensor) {
    return {tensor.one<int64_t>(906), tensor.one<int64_t>(900)};
}

}  // namespace

Status check_convolution(const Descriptor& op) {
    const Names& names = *names_of(op.kind);
    const auto x = op.part(names.x).all<int64_t>(902), w = op.part(names.w).all<int64_t>(902);
    const auto y = op.part(names.y).all<int64_t>(902);
    const Descriptor& conv = op.part(names.conv);
    const auto pre = conv.all<int64_t>(105), post = conv.all<int64_t>(104),
               stride = conv.all<int64_t>(103);
    const auto dilation = conv.all<int64_t>(102);
    if (conv.one<int64_t>(106) != 2)
        return say(BadParam, "a convolution of 4-dimensional tensors has 2 spatial dimensions");
    if (dilation[0] != 1 || dilation[1] != 1 || stride[0] != stride[1] || pre != post ||
        pre[0] != pre[1]) {
        return say(NotSupported, "only square strides and paddings without dilation");
    }
    if (x[0] != y[0] || x[1] != w[1] || w[0] != y[1])
        return say(BadParam, "images or channels of x, w and y differ");
    for (int i = 2; i < 4; ++i) {
        if (y[i] != (x[i] + pre[i - 2] + post[i - 2] - w[i]) / stride[i - 2] + 1) {
            return say(BadParam, "y has %lld pixels in dimension %d, x and w make another number",
                       (long long)y[i], i);
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
    p.stride = conv.part(names->conv).all<int64_t>(103)[0],
    p.pad = conv.part(names->conv).all<int64_t>(105)[0];
    if (conv.part(names->conv).one<int>(100) != FLOAT)
        return say(NotSupported, "compute types other than f32");
    if (conv.part(names->conv).one<int>(101) != 1)
        return say(NotSupported, "true convolution: only cross-correlation");
    if (conv.one<float>(names->alpha) != 1) return say(NotSupported, "alpha is not 1");
    const float beta = conv.one<float>(names->beta);
    if (beta != 0 && (beta != 1 || names->direction == Direction::Forward))
        return say(NotSupported, "beta is %g", beta);
    p.accumulate = beta == 1;
    std::set<const Descriptor*> tensors{&x, &w, y};
    bool is_usual = true;  // the order of the chain: the residual before the bias
    for (size_t i = 1; i < ops.size(); ++i) {
        const Descriptor& op = *ops[i];
        if (op.kind != OPERATION_POINTWISE || names->direction != Direction::Forward) {
            return say(NotSupported, "this pattern of operations");
        }
        if (&op.part(751) != y)
            return say(NotSupported, "a chain whose operations do not follow each other");
        if (!y->one<unsigned char>(907))
            return say(NotSupported, "intermediate results are virtual");
        if (y->one<int>(901) != FLOAT || op.part(750).one<int>(1) != FLOAT) {
            return say(NotSupported, "epilogues in f32 only");
        }
        const int mode = op.part(750).one<int>(0);
        const Descriptor* b = op.one<Descriptor*>(752);
        if (mode == 100 && !b && !p.relu) {
            p.relu = true, p.keeps_nan = op.part(750).one<int>(2) == 1;
        } else if (mode == 0 && b && !p.relu) {
            const auto bd = b->all<int64_t>(902);
            const bool row = bd == std::vector<int64_t>{1, yd[1], 1, 1};
            const int type = b->one<int>(901);
            if (row && !p.bias && (type == FLOAT || type == x.one<int>(901))) {
                p.bias = true, p.bias_type = Data(type), program->bias = operand(*b);
            } else if (!row && bd == yd && !p.residual) {
                p.residual = true, program->residual = operand(*b);
                is_usual &= !p.bias;
            } else {
                return say(NotSupported, "this operand of an addition");
            }
            tensors.insert(b);
        } else {
            return say(NotSupported, "this pattern of pointwise operations");
        }
        y = &op.part(753);
        tensors.insert(y);
        if (y->all<int64_t>(902) != yd)
            return say(BadParam, "a pointwise operation that changes shapes");
    }
    if (y->one<unsigned char>(907) || x.one<unsigned char>(907) || w.one<unsigned char>(907)) {
        return say(BadParam, "a graph's inputs and output are not virtual");
    }
    std::set<int64_t> ids;
    for (const Descriptor* t : tensors) {
        if (const Status bad = tensor_is_nhwc(*t)) return bad;
        const int64_t id = t->one<int64_t>(906);
        if (!ids.insert(id).second)
            return say(BadParam, "two tensors have the id %lld", (long long)id);
    }
    p.x_type = Data(x.one<int>(901)), p.w_type = Data(w.one<int>(901)),
    p.y_type = Data(y->one<int>(901));
    program->x = operand(x), program->w = operand(w), program->y = operand(*y);
    program->fused = ops.size() > 1;
    // Precompiled engines know one chain, and take a bias of the activations' type alone.
    program->compiled =
        program->wide() || (program->fused && !(is_usual && p.bias && p.bias_type == p.x_type));
    if (p.x_type != p.y_type) return say(NotSupported, "x and y of different types");
    if (program->wide() && !(names->direction == Direction::BackwardWeight && p.w_type == FLOAT)) {
        return say(NotSupported, "w of another type than x");
    }
    program->refused = refused_here();
    graph.program = program;
    return Success;
}

}  // namespace softcudnn
