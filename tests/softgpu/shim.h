// CUDA C++ for the host compiler: what a file of cuda/ needs to become a kernel of the software
// GPU.
//
// Included before the .cu. Threads are fibres (block.cpp), so the state of the running thread
// stands in one thread-local struct, `softgpu::here`, that every switch rewrites. Device memory is
// host memory. There are no float atomics on purpose: results must not depend on the order of
// threads.
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <type_traits>
#include <utility>

#include "numbers.h"

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))

#define SOFTGPU_VECTOR(T, name)                                                        \
    struct alignas(2 * sizeof(T)) name##2 { T x, y; };                                 \
    struct name##3 { T x, y, z; };                                                     \
    struct alignas(4 * sizeof(T) > 16 ? 16 : 4 * sizeof(T)) name##4 { T x, y, z, w; }; \
    inline name##2 make_##name##2(T x, T y) { return {x, y}; }                         \
    inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                 \
    inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
SOFTGPU_VECTOR(float, float)
SOFTGPU_VECTOR(int, int)
SOFTGPU_VECTOR(unsigned, uint)
SOFTGPU_VECTOR(short, short)
SOFTGPU_VECTOR(unsigned short, ushort)
SOFTGPU_VECTOR(signed char, char)
SOFTGPU_VECTOR(unsigned char, uchar)
struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

namespace softgpu {

// The running thread; its lane in the warp.
struct Here {
    uint3 thread;
    unsigned lane;
    uint3 block, block_size, grid_size;
};
// NOTE: `__thread` and not `thread_local`, which would call a wrapper at every use of an extern
// variable. Initial-exec places all thread-locals of the library in the few hundred bytes that the
// loader keeps for such libraries: keep them small.
extern __thread Here here __attribute__((tls_model("initial-exec")));

// Where threads wait: one barrier or warp operation of the source.
struct Site {
    const char* op;
    const char* file;
    int line;
    bool whole_block;
};

void barrier(const Site* site);
void* shared_array(const void* site, size_t bytes, const char* file, int line);
void* dynamic_shared();

// Waits for the 32 lanes of the warp at this site; each brings 8 bytes and gets those of all lanes,
// good until its next call.
const uint64_t* exchange(const Site* site, unsigned mask, uint64_t mine);

// The warp operations at one site.
struct Warp {
    const Site* site;

    template <class T>
    T read(unsigned mask, T value, unsigned from) const {
        static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a shuffle moves 4 or 8 bytes");
        uint64_t bits = 0;
        memcpy(&bits, &value, sizeof(T));
        bits = exchange(site, mask, bits)[from];
        memcpy(&value, &bits, sizeof(T));
        return value;
    }
    template <class T>
    T shfl(unsigned mask, T value, int from, int width = 32) const {
        return read(mask, value, (here.lane & ~(width - 1)) + (from & (width - 1)));
    }
    template <class T>
    T shfl_xor(unsigned mask, T value, int bits, int width = 32) const {
        const unsigned from = here.lane ^ bits;
        return read(mask, value,
                    (from | (width - 1)) <= (here.lane | (width - 1)) ? from & 31 : here.lane);
    }
    template <class T>
    T shfl_down(unsigned mask, T value, unsigned by, int width = 32) const {
        return read(mask, value,
                    (here.lane & (width - 1)) + by < unsigned(width) ? here.lane + by : here.lane);
    }
    template <class T>
    T shfl_up(unsigned mask, T value, unsigned by, int width = 32) const {
        return read(mask, value, (here.lane & (width - 1)) >= by ? here.lane - by : here.lane);
    }
    unsigned ballot(unsigned mask, int predicate) const {
        const uint64_t* all = exchange(site, mask, predicate != 0);
        unsigned bits = 0;
        for (int i = 0; i < 32; ++i) bits |= unsigned(all[i]) << i;
        return bits;
    }
};

// Tells the traced build (trace.cpp) of an access of the running thread that its compiler does not
// see, as of a copy that lands later; what lands it is SOFTGPU_UNTRACED.
void traced(const void* at, size_t bytes, bool write);
__forceinline__ void traffic([[maybe_unused]] const void* at, [[maybe_unused]] size_t bytes,
                             [[maybe_unused]] bool write) {
#ifdef __SANITIZE_THREAD__
    traced(at, bytes, write);
#endif
}
#define SOFTGPU_UNTRACED __attribute__((no_sanitize("thread")))

// How a kernel is called with an array of pointers to its parameters, and what the launcher may
// know of them.
struct Parameter {
    size_t size;
    enum Kind { Value, Struct, Read, Write } kind;
};
struct Entry {
    const char* name;
    unsigned threads;
    void (*call)(void** parameters);
    const Parameter* parameters;
    size_t count;
};
void add_entry(const Entry& entry);

template <class T>
constexpr Parameter::Kind kind_of() {
    if (std::is_pointer<T>::value) {
        return std::is_const<typename std::remove_pointer<T>::type>::value ? Parameter::Read
                                                                           : Parameter::Write;
    }
    return std::is_class<T>::value ? Parameter::Struct : Parameter::Value;
}

template <class F, F* kernel>
struct Trampoline;
template <class... A, void (*kernel)(A...)>
struct Trampoline<void(A...), kernel> {
    static constexpr Parameter parameters[] = {Parameter{sizeof(A), kind_of<A>()}...,
                                               Parameter{0, Parameter::Value}};

    template <size_t... i>
    static void spread([[maybe_unused]] void** p, std::index_sequence<i...>) {
        kernel(*static_cast<A*>(p[i])...);
    }
    static void call(void** p) { spread(p, std::index_sequence_for<A...>{}); }

    Trampoline(const char* name, unsigned threads) {
        add_entry({name, threads, call, parameters, sizeof...(A)});
    }
};

}  // namespace softgpu

#define threadIdx (softgpu::here.thread)
#define blockIdx (softgpu::here.block)
#define blockDim (softgpu::here.block_size)
#define gridDim (softgpu::here.grid_size)

// A kernel's place in the table, with the threads that its __launch_bounds__ allow: in the
// generated file that includes the .cu.
#define SOFTGPU_TEXT(a) #a
#define SOFTGPU_ENTRY(name, threads) SOFTGPU_ENTRY_(name, threads)
#define SOFTGPU_ENTRY_(name, threads)                                                   \
    static const softgpu::Trampoline<std::remove_pointer<decltype(&name)>::type, &name> \
        name##_entry(SOFTGPU_TEXT(name), threads);

// As in CUDA, an array belongs to a line of a function (of one instance of a template): who comes
// by again finds the same array.
#define SHARED(type, name, count)          \
    static char name##_site;               \
    type* const name = static_cast<type*>( \
        softgpu::shared_array(&name##_site, sizeof(type) * (count), __FILE__, __LINE__))
#define DYNAMIC_SHARED(type, name) type* const name = static_cast<type*>(softgpu::dynamic_shared())

// NOTE: a static of a lambda, so that two operations on one line are two sites.
#define SOFTGPU_SITE(op, whole_block)                                             \
    ([] {                                                                         \
        static constexpr softgpu::Site site{op, __FILE__, __LINE__, whole_block}; \
        return &site;                                                             \
    }())
#define SOFTGPU_WARP(op) \
    softgpu::Warp { SOFTGPU_SITE(op, false) }

#define __syncthreads() softgpu::barrier(SOFTGPU_SITE("__syncthreads", true))
#define __shfl_sync(...) (SOFTGPU_WARP("__shfl_sync").shfl(__VA_ARGS__))
#define __shfl_xor_sync(...) (SOFTGPU_WARP("__shfl_xor_sync").shfl_xor(__VA_ARGS__))
#define __shfl_down_sync(...) (SOFTGPU_WARP("__shfl_down_sync").shfl_down(__VA_ARGS__))
#define __shfl_up_sync(...) (SOFTGPU_WARP("__shfl_up_sync").shfl_up(__VA_ARGS__))
#define __ballot_sync(...) (SOFTGPU_WARP("__ballot_sync").ballot(__VA_ARGS__))
#define __any_sync(...) (SOFTGPU_WARP("__any_sync").ballot(__VA_ARGS__) != 0)
#define __all_sync(...) (SOFTGPU_WARP("__all_sync").ballot(__VA_ARGS__) == 0xffffffffu)
// The mask may be left out; all 32 lanes must come either way.
#define __syncwarp(...) ((void)softgpu::exchange(SOFTGPU_SITE("__syncwarp", false), 0xffffffffu, 0))

#include "intrinsics.h"
#include "tensor.h"
