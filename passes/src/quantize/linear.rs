//! Dense symmetric matrices: row-major, `n * n` elements.

/// The lower factor `L` with `a = L L^T`, in place; what is above the diagonal becomes 0. `false` where `a` is not
/// positive definite.
pub fn cholesky(a: &mut [f64], n: usize) -> bool {
    for i in 0..n {
        let (done, rest) = a.split_at_mut(i * n);
        let row = &mut rest[..n];
        for j in 0..i {
            let other = &done[j * n..j * n + n];
            row[j] = (row[j] - dot(&row[..j], &other[..j])) / other[j];
        }
        let left = row[i] - dot(&row[..i], &row[..i]);
        if left <= 0.0 || !left.is_finite() {
            return false;
        }
        row[i] = left.sqrt();
        row[i + 1..].fill(0.0);
    }
    true
}

/// `x` with `L L^T x = b`, in place of `b`.
pub fn solve(l: &[f64], n: usize, b: &mut [f64]) {
    for i in 0..n {
        b[i] = (b[i] - dot(&l[i * n..i * n + i], &b[..i])) / l[i * n + i];
    }
    for i in (0..n).rev() {
        b[i] /= l[i * n + i];
        let (head, tail) = b.split_at_mut(i);
        head.iter_mut().zip(&l[i * n..i * n + i]).for_each(|(v, c)| *v -= c * tail[0]);
    }
}

/// The upper factor `U` with `a^-1 = U^T U`; `None` where `a` is not positive definite.
///
/// With the order of rows and columns reversed, `a = R R^T` for an upper `R`, and `U` is the inverse of `R`.
pub fn inverse_factor(a: &[f64], n: usize) -> Option<Vec<f64>> {
    let mut l: Vec<f64> = (0..n * n).map(|i| a[n * n - 1 - i]).collect();
    if !cholesky(&mut l, n) {
        return None;
    }
    // The inverse of L, row by row: row i is (e_i - sum of l_ij * row j) / l_ii.
    let mut inverse = vec![0.0; n * n];
    for i in 0..n {
        let (done, rest) = inverse.split_at_mut(i * n);
        let row = &mut rest[..n];
        for j in 0..i {
            let c = l[i * n + j];
            row[..=j].iter_mut().zip(&done[j * n..j * n + j + 1]).for_each(|(v, d)| *v -= c * d);
        }
        row[i] = 1.0;
        row[..=i].iter_mut().for_each(|v| *v /= l[i * n + i]);
    }
    inverse.reverse();
    Some(inverse)
}

pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    // Four sums, so that additions do not wait for one another.
    let mut sums = [0.0; 4];
    let (a4, b4) = (a.chunks_exact(4), b.chunks_exact(4));
    let tail: f64 = a4.remainder().iter().zip(b4.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a4.zip(b4) {
        for k in 0..4 {
            sums[k] += x[k] * y[k];
        }
    }
    sums.iter().sum::<f64>() + tail
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn product(a: &[f64], b: &[f64], n: usize) -> Vec<f64> {
        (0..n * n).map(|i| (0..n).map(|k| a[i / n * n + k] * b[k * n + i % n]).sum()).collect()
    }

    fn transposed(a: &[f64], n: usize) -> Vec<f64> {
        (0..n * n).map(|i| a[i % n * n + i / n]).collect()
    }

    proptest! {
        #[test]
        fn factors_and_solutions_are_right(n in 1usize..9, seed: u64) {
            let mut random = super::super::Random(seed);
            let m: Vec<f64> = (0..n * n).map(|_| random.unit() - 0.5).collect();
            let mut a = product(&m, &transposed(&m, n), n);
            (0..n).for_each(|i| a[i * n + i] += 0.1);
            let mut l = a.clone();
            prop_assert!(cholesky(&mut l, n));
            let back = product(&l, &transposed(&l, n), n);
            prop_assert!(back.iter().zip(&a).all(|(x, y)| (x - y).abs() < 1e-9));
            let x: Vec<f64> = (0..n).map(|_| random.unit()).collect();
            let mut b: Vec<f64> = (0..n).map(|i| dot(&a[i * n..i * n + n], &x)).collect();
            solve(&l, n, &mut b);
            prop_assert!(b.iter().zip(&x).all(|(x, y)| (x - y).abs() < 1e-7));
            let u = inverse_factor(&a, n).unwrap();
            prop_assert!((0..n).all(|i| (0..i).all(|j| u[i * n + j] == 0.0)));
            let one = product(&product(&transposed(&u, n), &u, n), &a, n);
            prop_assert!((0..n * n).all(|i| (one[i] - (i / n == i % n) as u8 as f64).abs() < 1e-6));
        }
    }

    #[test]
    fn indefinite_matrices_are_refused() {
        assert!(!cholesky(&mut [1.0, 2.0, 2.0, 1.0], 2));
        assert!(!cholesky(&mut [f64::NAN], 1));
        assert!(inverse_factor(&[0.0], 1).is_none());
    }
}
