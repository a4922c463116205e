// Asynchronous copies of a thread, 16 bytes each. A copy lands when it is waited for and not
// before; from its start until then its destination is poison. So a read without a wait finds
// poison, and so does a read of what another thread copied, without a barrier behind its wait.
#pragma once

#include <vector>

#include "shim.h"

namespace softgpu {

// The bytes of shared memory that nobody wrote yet.
constexpr unsigned char POISON = 0xFF;

class Copies {
  public:
    void start(const Site* site, void* to, const void* from) {
        memset(to, POISON, BYTES);
        flying_.push_back({site, to, from, groups_});
    }
    void commit() { ++groups_; }
    // Lands all groups but the last `left`. What no group has is not waited for.
    void wait(unsigned left) {
        size_t kept = 0;
        for (const Copy& copy : flying_) {
            if (copy.group + left >= groups_) {
                flying_[kept++] = copy;
            } else if (copy.from) {
                memcpy(copy.to, copy.from, BYTES);
            } else {
                memset(copy.to, 0, BYTES);
            }
        }
        flying_.resize(kept);
    }
    // The site of a copy that has not landed, or null.
    const Site* flying() const { return flying_.empty() ? nullptr : flying_[0].site; }
    void clear() {
        flying_.clear();
        groups_ = 0;
    }

  private:
    static constexpr size_t BYTES = 16;

    struct Copy {
        const Site* site;
        void* to;
        const void* from;
        unsigned group;
    };
    std::vector<Copy> flying_;
    unsigned groups_ = 0;
};

}  // namespace softgpu
