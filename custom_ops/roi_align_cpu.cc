#include "roi_align_cpu.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <tuple>

#include "vector.h"

namespace mrcnn_tf {
namespace {

// The cells that an RoI's bins read along one axis, each with its weight: bilinear shares divided by the samples of a
// bin. Neighbouring samples read the same cells, which are merged: half of the work where bins are large.
class Taps {
 public:
  struct Tap {
    int32_t cell;
    float weight;
  };

  void Fill(const Axis& axis, int out) {
    taps_.clear();
    ends_.assign(1, 0);
    for (int bin = 0; bin < out; ++bin) {
      int32_t first, last;
      SamplesOnMap(axis, bin, &first, &last);
      for (int32_t index = first; index < last; ++index) {
        Sample sample;
        if (!MakeSample(axis, bin, index, &sample)) continue;
        const float share = 1.0f / static_cast<float>(axis.samples);
        Add(sample.low, (1.0f - sample.fraction) * share);
        Add(sample.high, sample.fraction * share);
      }
      ends_.push_back(static_cast<int32_t>(taps_.size()));
    }
  }

  const Tap* begin(int bin) const { return taps_.data() + ends_[bin]; }
  const Tap* end(int bin) const { return taps_.data() + ends_[bin + 1]; }

 private:
  void Add(int32_t cell, float weight) {
    const size_t own = taps_.size() - ends_.back();
    for (size_t back = 1; back <= std::min<size_t>(own, 2); ++back) {
      Tap& tap = taps_[taps_.size() - back];
      if (tap.cell == cell) {
        tap.weight += weight;
        return;
      }
    }
    if (weight != 0.0f) taps_.push_back({cell, weight});
  }

  std::vector<Tap> taps_;
  std::vector<int32_t> ends_;
};

// One bin's sum over its cells, for `Vectors` x 16 channels held in registers.
template <int Vectors, typename T>
void PoolChannels(const Taps& y, const Taps& x, int by, int bx, const T* map, int64_t pitch, int64_t channels,
                  T* pooled) {
  Vector sums[Vectors] = {};
  for (const Taps::Tap* row = y.begin(by); row != y.end(by); ++row) {
    for (const Taps::Tap* column = x.begin(bx); column != x.end(bx); ++column) {
      const T* cell = map + row->cell * pitch + column->cell * channels;
      const float weight = row->weight * column->weight;
      for (int v = 0; v < Vectors; ++v) sums[v] += weight * Load(cell + v * kLanes);
    }
  }
  for (int v = 0; v < Vectors; ++v) Store(pooled + v * kLanes, sums[v]);
}

template <typename T>
void PoolChannel(const Taps& y, const Taps& x, int by, int bx, const T* map, int64_t pitch, int64_t channels,
                 T* pooled) {
  float sum = 0.0f;
  for (const Taps::Tap* row = y.begin(by); row != y.end(by); ++row) {
    for (const Taps::Tap* column = x.begin(bx); column != x.end(bx); ++column) {
      sum += row->weight * column->weight * ToFloat(map[row->cell * pitch + column->cell * channels]);
    }
  }
  FromFloat(sum, pooled);
}

template <typename T>
void PoolBin(const Taps& y, const Taps& x, int by, int bx, const T* map, int64_t pitch, int64_t channels, T* pooled) {
  int64_t c = 0;
  for (; c + 8 * kLanes <= channels; c += 8 * kLanes) {
    PoolChannels<8>(y, x, by, bx, map + c, pitch, channels, pooled + c);
  }
  for (; c + kLanes <= channels; c += kLanes) {
    PoolChannels<1>(y, x, by, bx, map + c, pitch, channels, pooled + c);
  }
  for (; c < channels; ++c) PoolChannel(y, x, by, bx, map + c, pitch, channels, pooled + c);
}

// to[0..channels) += weight * from[0..channels)
template <typename T>
void AddScaled(float weight, const T* from, int64_t channels, float* to) {
  int64_t c = 0;
  for (; c + kLanes <= channels; c += kLanes) Store(to + c, Load(to + c) + weight * Load(from + c));
  for (; c < channels; ++c) to[c] += weight * ToFloat(from[c]);
}

// Rows of one image's map, numbered from `start` in the numbering of all rows.
struct MapRows {
  int level, image;
  int64_t start;
};

MapRows RowsOf(const RoIAlign& op, int level, int image) {
  int64_t start = 0;
  for (int before = 0; before < level; ++before) start += static_cast<int64_t>(op.images) * op.height[before];
  return {level, image, start + static_cast<int64_t>(image) * op.height[level]};
}

// Adds one RoI to the rows first <= row < last of `sums`, which starts at row `first`. Rows are numbered within the map.
template <typename T>
void AddRoI(const RoIAlign& op, int64_t roi, const T* upstream, int64_t first, int64_t last, Taps* y, Taps* x,
            float* sums) {
  const int64_t pitch = static_cast<int64_t>(op.width[op.level[roi]]) * op.channels;
  y->Fill(MakeAxis(op, roi, 1), op.out);
  x->Fill(MakeAxis(op, roi, 0), op.out);
  for (int by = 0; by < op.out; ++by) {
    for (const Taps::Tap* row = y->begin(by); row != y->end(by); ++row) {
      if (row->cell < first || row->cell >= last) continue;
      float* cells = sums + (row->cell - first) * pitch;
      for (int bx = 0; bx < op.out; ++bx) {
        const T* bin = upstream + (static_cast<int64_t>(by) * op.out + bx) * op.channels;
        for (const Taps::Tap* column = x->begin(bx); column != x->end(bx); ++column) {
          AddScaled(row->weight * column->weight, bin, op.channels, cells + column->cell * int64_t{op.channels});
        }
      }
    }
  }
}

// float gradients are summed where they stay; others in float beside them.
inline float* Sums(float* gradient, int64_t values, std::vector<float>*) {
  std::memset(gradient, 0, values * sizeof(float));
  return gradient;
}

inline float* Sums(BFloat16*, int64_t values, std::vector<float>* buffer) {
  buffer->assign(values, 0.0f);
  return buffer->data();
}

inline void WriteSums(const float*, int64_t, float*) {}

inline void WriteSums(const float* sums, int64_t values, BFloat16* gradient) {
  int64_t i = 0;
  for (; i + kLanes <= values; i += kLanes) Store(gradient + i, Load(sums + i));
  for (; i < values; ++i) FromFloat(sums[i], gradient + i);
}

}  // namespace

std::vector<int64_t> OrderByPlace(const RoIAlign& op) {
  std::vector<float> middle(op.rois);
  for (int64_t roi = 0; roi < op.rois; ++roi) {
    const float sum = op.boxes[4 * roi + 1] + op.boxes[4 * roi + 3];
    middle[roi] = IsFinite(sum) ? sum : 0.0f;
  }
  std::vector<int64_t> order(op.rois);
  std::iota(order.begin(), order.end(), int64_t{0});
  std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return std::tie(op.level[a], op.image[a], middle[a]) < std::tie(op.level[b], op.image[b], middle[b]);
  });
  return order;
}

template <typename T>
void PoolRoIs(const RoIAlign& op, const T* const* maps, const std::vector<int64_t>& order, int64_t first, int64_t last,
              T* pooled) {
  const int64_t channels = op.channels, size = static_cast<int64_t>(op.out) * op.out * channels;
  Taps x, y;
  for (int64_t place = first; place < last; ++place) {
    const int64_t roi = order[place];
    T* bins = pooled + roi * size;
    if (!HasMap(op, roi)) {
      std::memset(static_cast<void*>(bins), 0, size * sizeof(T));
      continue;
    }
    const int level = op.level[roi];
    const int64_t pitch = op.width[level] * channels;
    const T* map = maps[level] + op.image[roi] * op.height[level] * pitch;
    x.Fill(MakeAxis(op, roi, 0), op.out);
    y.Fill(MakeAxis(op, roi, 1), op.out);
    for (int by = 0; by < op.out; ++by) {
      for (int bx = 0; bx < op.out; ++bx, bins += channels) PoolBin(y, x, by, bx, map, pitch, channels, bins);
    }
  }
}

int64_t CountRows(const RoIAlign& op) {
  int64_t rows = 0;
  for (int level = 0; level < op.levels; ++level) rows += static_cast<int64_t>(op.images) * op.height[level];
  return rows;
}

std::vector<RowRange> TouchedRows(const RoIAlign& op) {
  std::vector<RowRange> touched(op.rois, RowRange{0, 0});
  Taps y;
  for (int64_t roi = 0; roi < op.rois; ++roi) {
    if (!HasMap(op, roi)) continue;
    y.Fill(MakeAxis(op, roi, 1), op.out);
    const int64_t start = RowsOf(op, op.level[roi], op.image[roi]).start;
    if (y.begin(0) == y.end(op.out - 1)) continue;
    const auto [low, high] = std::minmax_element(y.begin(0), y.end(op.out - 1),
                                                 [](const auto& a, const auto& b) { return a.cell < b.cell; });
    touched[roi] = {start + low->cell, start + high->cell + 1};
  }
  return touched;
}

template <typename T>
void AddGradientToRows(const RoIAlign& op, const std::vector<RowRange>& touched, const T* pooled_gradient,
                       int64_t first, int64_t last, T* const* map_gradients) {
  const int64_t size = static_cast<int64_t>(op.out) * op.out * op.channels;
  Taps x, y;
  std::vector<float> buffer;
  for (int level = 0; level < op.levels; ++level) {
    const int64_t pitch = static_cast<int64_t>(op.width[level]) * op.channels;
    for (int image = 0; image < op.images; ++image) {
      const int64_t start = RowsOf(op, level, image).start;
      const int64_t from = std::max(first, start), to = std::min(last, start + op.height[level]);
      if (from >= to) continue;
      T* gradient = map_gradients[level] + (static_cast<int64_t>(image) * op.height[level] + from - start) * pitch;
      float* sums = Sums(gradient, (to - from) * pitch, &buffer);
      for (int64_t roi = 0; roi < op.rois; ++roi) {
        if (touched[roi].first >= to || touched[roi].last <= from) continue;
        AddRoI(op, roi, pooled_gradient + roi * size, from - start, to - start, &y, &x, sums);
      }
      WriteSums(sums, (to - from) * pitch, gradient);
    }
  }
}

template void PoolRoIs<float>(const RoIAlign&, const float* const*, const std::vector<int64_t>&, int64_t, int64_t,
                              float*);
template void PoolRoIs<BFloat16>(const RoIAlign&, const BFloat16* const*, const std::vector<int64_t>&, int64_t, int64_t,
                                 BFloat16*);
template void AddGradientToRows<float>(const RoIAlign&, const std::vector<RowRange>&, const float*, int64_t, int64_t,
                                       float* const*);
template void AddGradientToRows<BFloat16>(const RoIAlign&, const std::vector<RowRange>&, const BFloat16*, int64_t,
                                          int64_t, BFloat16* const*);

}  // namespace mrcnn_tf
