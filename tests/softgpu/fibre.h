// A stack with a saved place in it. A switch stores the callee-saved registers of one and loads those of another: a few
// nanoseconds, where swapcontext makes a system call.
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

namespace softgpu {

class Fibre {
   public:
    Fibre() = default;  // the host thread's own stack
    // `main` must never return. `index` spreads the tops of neighbouring stacks over the sets of the cache.
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
#endif
};

}  // namespace softgpu
