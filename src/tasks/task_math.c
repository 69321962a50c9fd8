/* Powers and angles from additions, products, quotients and square roots.
 *
 * An example must not depend on whose libm rounds the last bit of pow: a weight that differs in the last
 * bit moves the border between two draws, and one draw in 2^50 would differ between two machines. So:
 *
 *     x = m * 2^e, m in [1/sqrt(2), sqrt(2));  ln m = 2 atanh((m - 1) / (m + 1)) by its series
 *     x^y = 2^n * exp(r), n the whole part of y log2(x), r the rest, by Taylor's series
 *     sin x, with x brought into [-pi/2, pi/2], by Taylor's series;  cos x = sin(x + pi/2)
 *     atan z = 4 atan(z'), where z' halves the angle twice, z / (1 + sqrt(1 + z^2)), by its series
 *
 * The series run a fixed number of steps, beyond what a double holds. The build forbids contraction
 * into fused products (-ffp-contract=off), so each operation rounds once, everywhere the same. Speed does
 * not matter here. */
#include "tasks/task_math.h"

#include <math.h>

static const double ln2 = 0.693147180559945309417;

static double ln_near_one(double m)
{
    double z = (m - 1) / (m + 1), square = z * z, term = z, sum = 0;
    for (int k = 1; k < 48; k += 2) {
        sum += term / k;
        term *= square;
    }
    return 2 * sum;
}

static double exp_small(double r)
{
    double term = 1, sum = 1;
    for (int k = 1; k < 24; k++) {
        term *= r / k;
        sum += term;
    }
    return sum;
}

double kh_task_power(double x, double y)
{
    int e = 0;
    while (x > 1.4142135623730951) {
        x /= 2;
        e++;
    }
    double log2 = e + ln_near_one(x) / ln2, product = y * log2;
    long whole = (long)(product < 0 ? product - 0.5 : product + 0.5);
    double result = exp_small((product - (double)whole) * ln2);
    for (; whole > 0; whole--) result *= 2;
    for (; whole < 0; whole++) result /= 2;
    return result;
}

double kh_task_sin(double x)
{
    while (x > KH_TASK_PI) x -= 2 * KH_TASK_PI;
    while (x < -KH_TASK_PI) x += 2 * KH_TASK_PI;
    if (x > KH_TASK_PI / 2) x = KH_TASK_PI - x;
    if (x < -KH_TASK_PI / 2) x = -KH_TASK_PI - x;
    double term = x, sum = 0;
    for (int k = 1; k < 30; k += 2) {
        sum += term;
        term *= -x * x / ((k + 1) * (k + 2));
    }
    return sum;
}

double kh_task_cos(double x)
{
    return kh_task_sin(x + KH_TASK_PI / 2);
}

/* Of z in [0, 1]. */
static double atan_unit(double z)
{
    for (int i = 0; i < 2; i++) z /= 1 + sqrt(1 + z * z);
    double square = z * z, term = z, sum = 0;
    for (int k = 1; k < 48; k += 2) {
        sum += term / k;
        term *= -square;
    }
    return 4 * sum;
}

double kh_task_angle(double y, double x)
{
    double height = fabs(y), width = fabs(x);
    if (height + width <= 0) return 0;
    double angle = height <= width ? atan_unit(height / width)
                                   : KH_TASK_PI / 2 - atan_unit(width / height);
    if (x < 0) angle = KH_TASK_PI - angle;
    return y < 0 ? -angle : angle;
}
