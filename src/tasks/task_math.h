/* tasks/task_math.h: the few functions that generators need beyond IEEE 754's operations, built from
 * those: the same bits on every machine, which libm does not promise. Errors below 1e-13. */
#ifndef KH_TASKS_TASK_MATH_H
#define KH_TASKS_TASK_MATH_H

#define KH_TASK_PI 3.14159265358979323846

/* x to the power y, for x in [1, 2^52] and |y| <= 64. */
double kh_task_power(double x, double y);
/* Of an angle in radians, |x| <= 4 pi. */
double kh_task_sin(double x);
double kh_task_cos(double x);
/* The angle of the vector (x, y), in [-pi, pi]; 0 for the zero vector. */
double kh_task_angle(double y, double x);

#endif
