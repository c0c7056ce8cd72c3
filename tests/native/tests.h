// What the native tests share.
#pragma once

#include <string>

// Counts, and tells, what does not hold.
void expect(bool holds, const std::string& what);

// Of all levels, against the scalar one.
void test_levels();

// Of the thread pool; without those that fork, where an emulator cannot.
void test_pool(bool can_fork);

// Of chains with computed weights.
void test_chains();

// Of what is refused.
void test_checks();

// Of so many convolutions by table lookups.
void test_lookups(int count);
