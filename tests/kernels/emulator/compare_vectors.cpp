// The CPU kernels with vectors of 64 bytes against those with 32, on shapes that reach every branch. Prints how many cases were equal, or
// the first that was not, and then exits with 1.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "cpu/cdconv.h"
#include "cpu/scala_attention.h"
#include "common/types.h"

using namespace ultron;

struct Case {
  int64_t batch, height, width, heads, head_dim, kernel_size;
  double dropout_p;
  bool with_bias;
};

template <typename T>
struct Tensors {
  std::vector<T> query, key, value, out, grad_out, grad_query, grad_key, grad_value;
};

template <typename T, typename S>
std::vector<double> results(const Case& c, Type type, bool wide) {
  std::mt19937 draws(7);
  std::normal_distribution<float> normal;
  const size_t n = c.batch * c.height * c.width * c.heads * c.head_dim, n_queries = n / c.head_dim, side = 2 * c.kernel_size - 1;
  Tensors<T> t;
  for (auto* tensor : {&t.query, &t.key, &t.value, &t.grad_out}) {
    tensor->resize(n);
    for (T& number : *tensor) write_number(&number, normal(draws));
  }
  for (auto* tensor : {&t.out, &t.grad_query, &t.grad_key, &t.grad_value}) tensor->resize(n);
  std::vector<S> bias(c.heads * side * side), lse(n_queries);
  for (S& number : bias) number = normal(draws);
  const int64_t seed = 123456789;
  const auto map = [&](std::vector<T>& tensor) {
    return Map{tensor.data(), c.height * c.width * c.heads * c.head_dim, c.width * c.heads * c.head_dim, c.heads * c.head_dim, c.head_dim};
  };
  ScalaShape shape{c.batch, c.height, c.width, c.heads, c.head_dim, c.kernel_size, c.kernel_size < c.height ? c.kernel_size : c.height,
                   c.kernel_size < c.width ? c.kernel_size : c.width, 1 / std::sqrt(double(c.head_dim)), c.dropout_p, &seed, type,
                   sizeof(S) == 8 ? Type::float64 : Type::float32};
  const void* bias_data = c.with_bias ? bias.data() : nullptr;
  ScalaForward f{shape, map(t.query), map(t.key), map(t.value), map(t.out), bias_data, lse.data()};
  const ScalaUnits units = scala_units(shape, forward_rows(shape, 2)), back = scala_units(shape, backward_rows(shape));
  (wide ? avx512::scala_forward : avx2::scala_forward)(f, units.rows, 0, units.count);
  ScalaBackward b{shape, map(t.query), map(t.key), map(t.value), map(t.out), map(t.grad_out), bias_data, lse.data(), map(t.grad_query), map(t.grad_key),
                  map(t.grad_value), nullptr, nullptr, true};
  std::vector<S> bias_sums(back.count * side * side);
  (wide ? avx512::scala_backward : avx2::scala_backward)(b, bias_sums.data(), back.rows, 0, back.count);
  std::vector<double> found(lse.begin(), lse.end());
  found.insert(found.end(), bias_sums.begin(), bias_sums.end());
  for (auto* tensor : {&t.out, &t.grad_query, &t.grad_key, &t.grad_value})
    for (T number : *tensor) found.push_back(read_number(number));
  return found;
}

template <typename T, typename S>
bool equal(const Case& c, Type type, double limit) {
  const std::vector<double> right = results<T, S>(c, type, false), found = results<T, S>(c, type, true);
  for (size_t i = 0; i < right.size(); ++i)
    if (!(std::abs(found[i] - right[i]) <= limit * (1 + std::abs(right[i])))) {
      std::printf("type %d, (%ld, %ld, %ld, %ld, %ld), k %ld: number %zu is %g with 64 bytes, %g with 32\n", int(type), long(c.batch), long(c.height),
                  long(c.width), long(c.heads), long(c.head_dim), long(c.kernel_size), i, found[i], right[i]);
      return false;
    }
  return true;
}

int main() {
  const Case cases[] = {
      {1, 20, 20, 2, 32, 7, 0, true}, {2, 9, 13, 1, 32, 7, 0.3, true}, {1, 3, 30, 2, 24, 7, 0, true}, {1, 1, 1, 1, 8, 3, 0, false},
      {1, 17, 33, 1, 40, 5, 0, true}, {1, 16, 16, 1, 128, 13, 0.1, true}, {1, 40, 5, 2, 32, 9, 0, false},
  };
  int n = 0;
  for (const Case& c : cases) {
    if (!equal<float, float>(c, Type::float32, 2e-5) || !equal<double, double>(c, Type::float64, 1e-12)) return 1;
    if (!equal<Half, float>(c, Type::float16, 2e-3) || !equal<Bfloat16, float>(c, Type::bfloat16, 2e-2)) return 1;
    n += 4;
  }
  std::printf("%d cases equal\n", n);
}
