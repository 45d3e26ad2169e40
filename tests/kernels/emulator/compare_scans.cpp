// The scan of exact search, and the nearest features, with vectors of 64 bytes against those with 32, on shapes that reach every branch. Prints how
// many cases were equal, or the first that was not, and then exits with 1.
#include <cstdio>
#include <map>
#include <random>
#include <vector>

#include "common/types.h"
#include "search/nearest.h"
#include "search/scan.h"

using namespace ultron;

int main() {
  const int64_t shapes[][3] = {{1, 1, 1}, {9, 7, 3}, {200, 33, 49}, {130, 600, 70}};  // rows, dimensions, queries
  int n = 0;
  for (const auto& [n_rows, dim, n_queries] : shapes)
    for (const bool is_half : {false, true}) {
      std::mt19937 draws(7);
      std::normal_distribution<float> normal;
      std::vector<float> rows(n_rows * dim), queries(n_queries * dim), hurdles(n_queries);
      std::vector<Half> halves(rows.size());
      for (float& value : rows) value = normal(draws);
      for (float& value : queries) value = normal(draws);
      for (float& value : hurdles) value = 0.3f * normal(draws);
      for (size_t i = 0; i < rows.size(); ++i) write_number(&halves[i], rows[i]);
      std::map<int64_t, float> results[2];
      float largest[2];
      for (const bool wide : {false, true}) {
        std::vector<int64_t> positions(n_rows * n_queries);
        std::vector<float> products(positions.size());
        const void* data = is_half ? static_cast<const void*>(halves.data()) : rows.data();
        const Scan work{data, n_rows, dim, dim * (is_half ? 2 : 4), is_half, queries.data(), hurdles.data(), n_queries,
                        positions.data(), products.data(), n_rows * n_queries, &largest[wide]};
        const int64_t count = wide ? avx512::scan(work) : avx2::scan(work);
        for (int64_t i = 0; i < count; ++i) results[wide][positions[i]] = products[i];
      }
      // Sums are taken in another order; no hurdle lies within that difference of a product here.
      bool equal = results[0].size() == results[1].size() && std::abs(largest[0] - largest[1]) <= 1e-5f * largest[0];
      for (const auto& [position, product] : results[0])
        equal = equal && results[1].count(position) && std::abs(results[1][position] - product) <= 1e-5f * dim;
      if (!equal) {
        std::printf("(%ld, %ld, %ld), half %d: %zu products with 32 bytes, %zu with 64\n", long(n_rows), long(dim), long(n_queries), is_half,
                    results[0].size(), results[1].size());
        return 1;
      }
      ++n;
    }
  const int64_t pairs[][3] = {{1, 1, 1}, {9, 50, 7}, {17, 97, 128}, {30, 48, 259}};  // features, others, dimensions
  for (const auto& [n_left, n_right, dim] : pairs)
    for (const int least : {0, 254}) {
      std::mt19937 draws(7);
      std::uniform_int_distribution<int> bytes(least, 255);
      std::vector<uint8_t> left(n_left * dim), right(n_right * dim);
      for (uint8_t& value : left) value = static_cast<uint8_t>(bytes(draws));
      for (uint8_t& value : right) value = static_cast<uint8_t>(bytes(draws));
      std::vector<int32_t> results[2];
      for (const bool wide : {false, true}) {
        results[wide].resize(3 * n_left + n_right);
        int32_t* rows = results[wide].data();
        const Nearest work{left.data(), right.data(), n_left, n_right, dim, rows, rows + n_left, rows + 2 * n_left, rows + 3 * n_left};
        wide ? avx512::find_nearest(work) : avx2::find_nearest(work);
      }
      if (n_right == 1)  // has no next
        for (auto& numbers : results)
          for (int64_t i = 0; i < n_left; ++i) numbers[2 * n_left + i] = numbers[2 * n_left + i] >= FARTHEST;
      if (results[0] != results[1]) {
        std::printf("nearest of (%ld, %ld, %ld) from %d on: not equal\n", long(n_left), long(n_right), long(dim), least);
        return 1;
      }
      ++n;
    }
  std::printf("%d cases equal\n", n);
}
