// How a warp reads, adds and writes the channels of one cell or bin. Sums are float32 whatever the maps are.

#ifndef MRCNN_TF_ROI_ALIGN_CHANNELS_CUH_
#define MRCNN_TF_ROI_ALIGN_CHANNELS_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

namespace mrcnn_tf {

constexpr int kWarp = 32;
constexpr unsigned kWholeWarp = 0xffffffffu;

// Conversion of a type's values one by one and by 32-bit words, in which vectors are moved.
template <typename T>
struct Number;

template <>
struct Number<float> {
  static constexpr int kPerWord = 1;
  static __device__ float Widen(float value) { return value; }
  static __device__ float Narrow(float value) { return value; }
  static __device__ void Unpack(uint32_t word, float* values) { values[0] = __uint_as_float(word); }
  static __device__ uint32_t Pack(const float* values) { return __float_as_uint(values[0]); }
};

template <>
struct Number<__half> {
  static constexpr int kPerWord = 2;
  static __device__ float Widen(__half value) { return __half2float(value); }
  static __device__ __half Narrow(float value) { return __float2half_rn(value); }
  static __device__ void Unpack(uint32_t word, float* values) {
    const float2 pair = __half22float2(*reinterpret_cast<const __half2*>(&word));
    values[0] = pair.x;
    values[1] = pair.y;
  }
  static __device__ uint32_t Pack(const float* values) {
    const __half2 pair = __floats2half2_rn(values[0], values[1]);
    return *reinterpret_cast<const uint32_t*>(&pair);
  }
};

template <>
struct Number<__nv_bfloat16> {
  static constexpr int kPerWord = 2;
  static __device__ float Widen(__nv_bfloat16 value) { return __bfloat162float(value); }
  static __device__ __nv_bfloat16 Narrow(float value) { return __float2bfloat16_rn(value); }
  static __device__ void Unpack(uint32_t word, float* values) {
    values[0] = __uint_as_float(word << 16);
    values[1] = __uint_as_float(word & 0xffff0000u);
  }
  static __device__ uint32_t Pack(const float* values) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(values[0], values[1]);
    return *reinterpret_cast<const uint32_t*>(&pair);
  }
};

template <int kWords>
struct Words;
template <>
struct Words<2> {
  using Type = uint2;
};
template <>
struct Words<4> {
  using Type = uint4;
};

// One thread's share of a sum over cells or bins.
template <int kWidth>
struct Sum {
  float value[kWidth];

  __device__ Sum() {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) value[i] = 0.0f;
  }
  __device__ void Add(float weight, const Sum& other) {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) value[i] += weight * other.value[i];
  }
};

// The channels of a thread, kWidth of the slice of 32 kWidth that its warp covers. kVector: neighbouring channels,
// moved as one vector, which asks for a channel count divisible by kWidth and aligned pointers. Otherwise every 32nd
// channel, for any count. Threads beyond the last channel read it again, so that loads need no branch, and write
// nothing.
template <typename T, int kWidth, bool kVector>
class Channels {
 public:
  static constexpr int kSlice = kWarp * kWidth;
  using Total = Sum<kWidth>;

  __device__ Channels(int32_t channels, int32_t slice)
      : channels_(channels),
        first_(slice * kSlice + static_cast<int32_t>(threadIdx.x % kWarp) * (kVector ? kWidth : 1)) {}

  // Values as they lie in memory: converted only when they are added, they take few registers while they are awaited.
  using Vector = typename Words<kWidth / Number<T>::kPerWord>::Type;
  struct Singles {
    T value[kWidth];
  };
  using Raw = std::conditional_t<kVector, Vector, Singles>;

  __device__ Raw Load(const T* values) const {
    Raw raw;
    if constexpr (kVector) {
      const int32_t from = min(first_, channels_ - kWidth);
      raw = __ldg(reinterpret_cast<const Vector*>(values + from));
    } else {
#pragma unroll
      for (int i = 0; i < kWidth; ++i) raw.value[i] = values[min(first_ + i * kWarp, channels_ - 1)];
    }
    return raw;
  }

  static __device__ void Add(float weight, const Raw& raw, Total* total) {
    Total values;
    if constexpr (kVector) {
      constexpr int kPerWord = Number<T>::kPerWord;
      const uint32_t* words = reinterpret_cast<const uint32_t*>(&raw);
#pragma unroll
      for (int i = 0; i < kWidth / kPerWord; ++i) Number<T>::Unpack(words[i], values.value + i * kPerWord);
    } else {
#pragma unroll
      for (int i = 0; i < kWidth; ++i) values.value[i] = Number<T>::Widen(raw.value[i]);
    }
    total->Add(weight, values);
  }

  // Written past the caches' favour: each value once, while the maps are read many times.
  __device__ void Store(T* values, const Total& total) const {
    if constexpr (kVector) {
      constexpr int kPerWord = Number<T>::kPerWord;
      Vector packed;
      uint32_t* words = reinterpret_cast<uint32_t*>(&packed);
#pragma unroll
      for (int i = 0; i < kWidth / kPerWord; ++i) words[i] = Number<T>::Pack(total.value + i * kPerWord);
      if (first_ < channels_) __stcs(reinterpret_cast<Vector*>(values + first_), packed);
    } else {
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        if (first_ + i * kWarp < channels_) values[first_ + i * kWarp] = Number<T>::Narrow(total.value[i]);
      }
    }
  }

  __device__ void AtomicAdd(float* values, const Total& total) const {
    if constexpr (kVector) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
      static_assert(kWidth == 4, "a vector sum has four values");
      if (first_ >= channels_) return;
      atomicAdd(reinterpret_cast<float4*>(values + first_),
                make_float4(total.value[0], total.value[1], total.value[2], total.value[3]));
#endif
    } else {
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        if (first_ + i * kWarp < channels_) atomicAdd(values + first_ + i * kWarp, total.value[i]);
      }
    }
  }

 private:
  int32_t channels_, first_;
};

}  // namespace mrcnn_tf

#endif  // MRCNN_TF_ROI_ALIGN_CHANNELS_CUH_
