// What the native tests share.
#pragma once

#include <string>

// Counts, and tells, what does not hold.
void expect(bool holds, const std::string& what);

// Of the thread pool.
void test_pool();

// Of what is refused.
void test_checks();
