// Sixteen floats at a time, and how float32 and bfloat16 memory turn into them.

#ifndef MRCNN_TF_VECTOR_H_
#define MRCNN_TF_VECTOR_H_

#include <cstdint>
#include <cstring>

namespace mrcnn_tf {

constexpr int kLanes = 16;

// Compiler vectors are as wide as said on every processor: where registers are narrower, several are used.
typedef float Vector __attribute__((vector_size(kLanes * sizeof(float))));
typedef uint32_t VectorBits __attribute__((vector_size(kLanes * sizeof(uint32_t))));
typedef uint16_t HalfBits __attribute__((vector_size(kLanes * sizeof(uint16_t))));

struct BFloat16 {
  uint16_t bits;
};

inline Vector Load(const float* from) {
  Vector value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

inline void Store(float* to, Vector value) { std::memcpy(to, &value, sizeof(value)); }

inline Vector Load(const BFloat16* from) {
  HalfBits half;
  std::memcpy(&half, from, sizeof(half));
  const VectorBits bits = __builtin_convertvector(half, VectorBits) << 16;
  return (Vector)bits;  // the same bits, as the compiler defines casts between its vectors
}

inline void Store(BFloat16* to, Vector value) {
  VectorBits bits = (VectorBits)value;
  const VectorBits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;  // to the nearest, ties to even
  const VectorBits nan = (bits >> 16) | 0x40;  // rounding must not turn a NaN into infinity
  bits = (bits & 0x7fffffff) > 0x7f800000 ? nan : rounded;
  const HalfBits half = __builtin_convertvector(bits, HalfBits);
  std::memcpy(to, &half, sizeof(half));
}

inline float ToFloat(float value) { return value; }

inline float ToFloat(BFloat16 value) {
  const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  float result;
  std::memcpy(&result, &bits, sizeof(result));
  return result;
}

inline void FromFloat(float value, float* to) { *to = value; }

inline void FromFloat(float value, BFloat16* to) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const bool nan = (bits & 0x7fffffff) > 0x7f800000;
  to->bits = static_cast<uint16_t>(nan ? (bits >> 16) | 0x40 : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

}  // namespace mrcnn_tf

#endif  // MRCNN_TF_VECTOR_H_
