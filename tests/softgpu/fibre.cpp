#include "fibre.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <new>

namespace softgpu {

#ifdef SOFTGPU_ASAN
constexpr size_t STACK = 512 << 10;
#else
constexpr size_t STACK = 128 << 10;
#endif
constexpr size_t GUARD = 16 << 10;

#ifndef SOFTGPU_UCONTEXT
#if defined(__x86_64__)
asm(R"(
.text
.globl softgpu_switch
.hidden softgpu_switch
.type softgpu_switch,@function
softgpu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size softgpu_switch,.-softgpu_switch
)");
// What `ret` pops stands seven words below the top: a function begins with its stack 8 bytes off a
// multiple of 16.
constexpr size_t FRAME = 8, RETURN = 6;
#else
asm(R"(
.text
.globl softgpu_switch
.hidden softgpu_switch
.type softgpu_switch,%function
softgpu_switch:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
.size softgpu_switch,.-softgpu_switch
)");
constexpr size_t FRAME = 20, RETURN = 11;
#endif
#endif

#ifdef SOFTGPU_ASAN
static thread_local Fibre* arriving = nullptr;
// ASan wants to hear from a fibre when it first runs.
void first_steps() {
    __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
    arriving->main_();
}
#endif

Fibre::Fibre(void (*main)(), size_t index) : main_(main) {
    void* memory = mmap(nullptr, STACK + GUARD, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    mapping_ = static_cast<char*>(memory);
    mprotect(mapping_, GUARD, PROT_NONE);
    low_ = mapping_ + GUARD;
    top_ = low_ + STACK - index % 64 * 128;
    reset();
}

Fibre::~Fibre() {
    if (mapping_) munmap(mapping_, STACK + GUARD);
}

void Fibre::reset() {
    void (*first)() = main_;
#ifdef SOFTGPU_ASAN
    __asan_unpoison_memory_region(low_, STACK);
    fake_ = nullptr;
    first = first_steps;
#endif
#ifdef SOFTGPU_UCONTEXT
    getcontext(&context_);
    context_.uc_stack.ss_sp = low_;
    context_.uc_stack.ss_size = top_ - low_;
    context_.uc_link = nullptr;
    makecontext(&context_, first, 0);
#else
    void** frame = reinterpret_cast<void**>(top_) - FRAME;
    for (size_t i = 0; i < FRAME; ++i) frame[i] = nullptr;
    frame[RETURN] = reinterpret_cast<void*>(first);
    sp_ = frame;
#endif
}

#ifdef SOFTGPU_ASAN
// Tells ASan which stack comes next.
void Fibre::announce(Fibre& to) {
    if (!to.main_ && !to.known_) {
        pthread_attr_t attributes;
        void* low = nullptr;
        size_t size = 0;
        pthread_getattr_np(pthread_self(), &attributes);
        pthread_attr_getstack(&attributes, &low, &size);
        pthread_attr_destroy(&attributes);
        to.low_ = static_cast<char*>(low);
        to.top_ = to.low_ + size;
        to.known_ = true;
    }
    arriving = &to;
    __sanitizer_start_switch_fiber(&fake_, to.low_, to.top_ - to.low_);
}
#endif

}  // namespace softgpu
