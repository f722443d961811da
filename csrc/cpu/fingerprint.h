// 128 bits that tell whether memory still holds what it held. No torch header here.
//
// Each of four sums takes 16 bytes a turn: the 128-bit product of two 64-bit words, one of them mixed with the sum so far,
// with its halves added without carry. Two different contents that meet in one sum alone agree with a probability of about
// 2⁻⁶⁴; where several sums differ, with less. It is no cryptographic hash: somebody who looks for such a pair finds one.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>

namespace gconv::cpu {

using Fingerprint = std::array<uint64_t, 2>;

namespace fingerprint_detail {
constexpr int64_t kAhead = 2048;  // bytes
constexpr uint64_t kOdd[4] = {0x9e3779b97f4a7c15, 0xc2b2ae3d27d4eb4f, 0x165667b19e3779f9, 0xd6e8feb86659fd93};

inline uint64_t fold(uint64_t a, uint64_t b) {
  __extension__ using Wide = unsigned __int128;
  const Wide product = static_cast<Wide>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

inline void add(uint64_t (&sum)[4], const char* bytes) {
  uint64_t word[8];
  std::memcpy(word, bytes, sizeof word);
  for (int i = 0; i < 4; ++i) sum[i] = fold(word[2 * i] ^ kOdd[i], word[2 * i + 1] ^ sum[i]) + word[2 * i];
}
}  // namespace fingerprint_detail

inline Fingerprint fingerprint(const void* data, int64_t bytes) {
  using namespace fingerprint_detail;
  const char* from = static_cast<const char*>(data);
  uint64_t sum[4] = {kOdd[1], kOdd[2], kOdd[3], kOdd[0]};
  int64_t left = bytes;
  for (; left >= 64; left -= 64, from += 64) {
    __builtin_prefetch(from + kAhead);  // left to the processor, memory is waited for line by line
    add(sum, from);
  }
  char rest[64] = {};
  if (left > 0) std::memcpy(rest, from, left);  // of nothing, `from` may be null
  add(sum, rest);
  Fingerprint result;
  for (int half = 0; half < 2; ++half) {
    uint64_t all = kOdd[half] ^ static_cast<uint64_t>(bytes);
    for (int i = 0; i < 4; ++i) all = fold(all ^ kOdd[(i + half) % 4], sum[i] ^ kOdd[3 - half]) + sum[i];
    result[half] = all;
  }
  return result;
}

}  // namespace gconv::cpu
