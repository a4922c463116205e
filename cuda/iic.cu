// IIC's loss and its gradient: see src/device/ops/iic.rs.
#include "common.cuh"
