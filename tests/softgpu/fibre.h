// A stack with a saved place in it. A switch stores the callee-saved registers of one and loads
// those of another: a few nanoseconds, where swapcontext makes a system call.
#pragma once

#include <stddef.h>

#if !defined(SOFTGPU_UCONTEXT) && !defined(__x86_64__) && !defined(__aarch64__)
#define SOFTGPU_UCONTEXT
#endif
#ifdef SOFTGPU_UCONTEXT
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#define SOFTGPU_ASAN
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SOFTGPU_ASAN
#endif
#endif
#ifdef SOFTGPU_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#ifndef SOFTGPU_UCONTEXT
// Stores the callee-saved registers and the stack pointer at `save`, and loads those of `load`.
extern "C" void softgpu_switch(void** save, void* load) __attribute__((visibility("hidden")));
#endif

namespace softgpu {

class Fibre {
  public:
    Fibre() = default;  // the host thread's own stack
    // `main` must never return. `index` spreads the tops of neighbouring stacks over the sets of
    // the cache.
    Fibre(void (*main)(), size_t index);
    ~Fibre();
    Fibre(const Fibre&) = delete;
    Fibre& operator=(const Fibre&) = delete;

    // Leaves `this`, the running fibre, and goes on where `to` left.
    void switch_to(Fibre& to);
    // Lets an abandoned fibre begin anew.
    void reset();

  private:
    void* sp_ = nullptr;
    void (*main_)() = nullptr;
    char* mapping_ = nullptr;
    char* low_ = nullptr;
    char* top_ = nullptr;
#ifdef SOFTGPU_UCONTEXT
    ucontext_t context_;
#endif
#ifdef SOFTGPU_ASAN
    friend void first_steps();
    void* fake_ = nullptr;
    bool known_ = false;  // bounds of a host stack
    void announce(Fibre& to);
#endif
};

inline void Fibre::switch_to(Fibre& to) {
#ifdef SOFTGPU_ASAN
    announce(to);
#endif
#ifdef SOFTGPU_UCONTEXT
    swapcontext(&context_, &to.context_);
#else
    softgpu_switch(&sp_, to.sp_);
#endif
#ifdef SOFTGPU_ASAN
    __sanitizer_finish_switch_fiber(fake_, nullptr, nullptr);
#endif
}

}  // namespace softgpu
