/* How the weights of a layer are stored: as its elements, or in fewer bits for inference. */
#ifndef FL_WEIGHT_TYPES_H
#define FL_WEIGHT_TYPES_H

/* 16 bits are widened as they are loaded: a layer computes as one of float32 whose weights were
 * rounded.  Of FL_INT8, each row of W and U has a scale, and so has each row of x and of h at each
 * step; a sum of products is one of integers, and exact. */
typedef enum { FL_SAME, FL_BFLOAT16, FL_FLOAT16, FL_INT8, FL_WEIGHT_TYPES } fl_weight_type;

#endif
