// Quotients of small numbers by a divisor that is known before the launch.
#pragma once

// floor(n / d) where inverse = ceil(2^32 / d) and n, d < 2^16: n * inverse exceeds n * 2^32 / d by
// less than n < 2^16, which is not enough to reach the next multiple of 2^32, since the fraction of
// n / d is at most 1 - 1/d. For d = 1 the inverse is 0 (2^32 does not fit), which stands for n.
__device__ inline unsigned divide(unsigned n, unsigned inverse) {
  return inverse == 0 ? n : __umulhi(n, inverse);
}
