# Reference numbers for reports/stats, from base R alone (stats package).
# Make r_reference.json again with:   Rscript r_reference.R > r_reference.json
# Formulas that base R lacks are worked out below from their papers, by another route than reports/stats takes
# wherever there is one (uniroot on an explicitly maximised likelihood instead of a closed form, enumeration
# instead of a Fourier transform).

records <- character()
number <- function(x) paste0("[", paste(sprintf("%.15g", x), collapse = ", "), "]")
keep <- function(name, arguments, values) {
  given <- paste(sprintf('"%s": %s', names(arguments), sapply(arguments, number)), collapse = ", ")
  found <- paste(sprintf('"%s": %s', names(values), sapply(values, number)), collapse = ", ")
  records <<- c(records, sprintf('  {"name": "%s", "given": {%s}, "found": {%s}}', name, given, found))
}

wilson <- function(x, n, level = 0.95) prop.test(x, n, conf.level = level, correct = FALSE)$conf.int[1:2]

# ---- McNemar: exact by binom.test; mid-p by summing point probabilities no larger in distance from the centre
for (pair in list(c(10, 25), c(75, 89), c(0, 6), c(1, 7), c(3, 3), c(400, 470))) {
  n <- sum(pair); k <- 0:n; mass <- dbinom(k, n, 0.5)
  far <- abs(k - n / 2); here <- abs(pair[1] - n / 2)
  keep("mcnemar", list(a_only = pair[1], b_only = pair[2]),
       list(exact = binom.test(pair[1], n, 0.5)$p.value,
            midp = sum(mass[far > here + 1e-9]) + 0.5 * sum(mass[abs(far - here) < 1e-9])))
}

# ---- Wilson
for (case in list(c(7, 10), c(0, 12), c(12, 12), c(135, 500), c(1055, 1319)))
  keep("wilson", list(x = case[1], n = case[2]), list(i95 = wilson(case[1], case[2]), i90 = wilson(case[1], case[2], 0.9)))

# ---- Newcombe paired, method 10 (Newcombe 1998, Stat Med 17:2635), difference p_b - p_a
newcombe_paired <- function(both, a, b, neither, level = 0.95) {
  n <- both + a + b + neither
  table <- matrix(c(both, b, a, neither), 2)
  wa <- wilson(both + a, n, level); wb <- wilson(both + b, n, level)
  pa <- (both + a) / n; pb <- (both + b) / n
  margins <- prod(rowSums(table)) * prod(colSums(table))
  d <- both * neither - a * b
  phi <- if (margins == 0) 0 else (if (d > n / 2) d - n / 2 else if (d >= 0) 0 else d) / sqrt(margins)
  join <- function(u, v) sqrt(u^2 - 2 * phi * u * v + v^2)
  c(pb - pa - join(pb - wb[1], wa[2] - pa), pb - pa + join(wb[2] - pb, pa - wa[1]))
}
# ---- Tango score: the likelihood under p_b - p_a = delta maximised numerically over the share of a_only
tango_z <- function(a, b, n, delta) {
  loss <- function(q) { # q = P(a only), P(b only) = q + delta
    rest <- 1 - 2 * q - delta
    terms <- c(if (a > 0) a * log(q) else 0, if (b > 0) b * log(q + delta) else 0, if (n - a - b > 0) (n - a - b) * log(rest) else 0)
    -sum(terms)
  }
  lower <- max(0, -delta); upper <- (1 - delta) / 2
  slope <- function(q) (if (a > 0) a / q else 0) + (if (b > 0) b / (q + delta) else 0) - 2 * (n - a - b) / (1 - 2 * q - delta)
  gap <- 1e-13
  q <- if (slope(lower + gap) <= 0) lower else if (slope(upper - gap) >= 0) upper else
    uniroot(slope, c(lower + gap, upper - gap), tol = 1e-15, maxiter = 10000)$root
  (b - a - n * delta) / sqrt(n * (2 * q + delta - delta^2))
}
tango_ci <- function(a, b, n, level = 0.95) {
  z <- qnorm((1 + level) / 2); d <- (b - a) / n
  c(uniroot(function(x) tango_z(a, b, n, x) - z, c(-1 + 1e-9, d - 1e-9), tol = 1e-13)$root,
    uniroot(function(x) tango_z(a, b, n, x) + z, c(d + 1e-9, 1 - 1e-9), tol = 1e-13)$root)
}
for (t in list(c(1, 1, 7, 12), c(59, 6, 16, 80), c(14, 5, 0, 22), c(968, 87, 67, 197), c(20, 12, 2, 16), c(2, 14, 13, 1))) {
  n <- sum(t)
  keep("paired_table", list(both = t[1], a_only = t[2], b_only = t[3], neither = t[4]),
       list(newcombe95 = newcombe_paired(t[1], t[2], t[3], t[4]), newcombe90 = newcombe_paired(t[1], t[2], t[3], t[4], 0.9),
            tango95 = tango_ci(t[2], t[3], n), tango90 = tango_ci(t[2], t[3], n, 0.9),
            noninferior = pnorm(-tango_z(t[2], t[3], n, -0.05)), upper_p = pnorm(tango_z(t[2], t[3], n, 0.05))))
}

# ---- two proportions: prop.test, and Newcombe unpaired (Stat Med 17:873); Farrington-Manning by numerical maximum
fm_z <- function(xa, na, xb, nb, delta) {
  loss <- function(p) -(dbinom(xa, na, p, log = TRUE) + dbinom(xb, nb, p + delta, log = TRUE))
  low <- max(0, -delta) + 1e-10; high <- min(1, 1 - delta) - 1e-10
  p <- optimize(loss, c(low, high), tol = 1e-14)$minimum
  slope <- function(q) (xa / na - q) * na / (q * (1 - q)) + (xb / nb - q - delta) * nb / ((q + delta) * (1 - q - delta))
  p <- uniroot(slope, c(max(low, p - 1e-3), min(high, p + 1e-3)), tol = 1e-15)$root
  (xb / nb - xa / na - delta) / sqrt(p * (1 - p) / na + (p + delta) * (1 - p - delta) / nb)
}
for (c4 in list(c(135, 500, 162, 500), c(105, 500, 135, 500), c(134, 500, 162, 500), c(135, 500, 134, 500),
                c(118, 500, 162, 500), c(9, 10, 3, 10), c(56, 70, 48, 80))) {
  test <- prop.test(c(c4[1], c4[3]), c(c4[2], c4[4]), correct = FALSE)
  wa <- wilson(c4[1], c4[2]); wb <- wilson(c4[3], c4[4]); pa <- c4[1] / c4[2]; pb <- c4[3] / c4[4]
  keep("two_proportion", list(right_a = c4[1], n_a = c4[2], right_b = c4[3], n_b = c4[4]),
       list(p = test$p.value, chi2 = unname(test$statistic),
            newcombe = c(pb - pa - sqrt((pb - wb[1])^2 + (wa[2] - pa)^2), pb - pa + sqrt((wb[2] - pb)^2 + (pa - wa[1])^2)),
            fm_low = fm_z(c4[1], c4[2], c4[3], c4[4], -0.05), fm_high = fm_z(c4[1], c4[2], c4[3], c4[4], 0.05)))
}

# ---- t tests; sign-flip by full enumeration
d <- c(0.25, -0.125, 0.5, 0, 0.375, 0.125, -0.25, 0.25, 0.125, 0.5, 0, 0.125)
test <- t.test(d); flips <- as.matrix(expand.grid(rep(list(c(-1, 1)), length(d))))
keep("paired_t", list(d = d), list(t = unname(test$statistic), p = test$p.value, ci = test$conf.int[1:2], df = unname(test$parameter),
     sign_flip = mean(abs(flips %*% d) >= abs(sum(d)) - 1e-12)))
d <- c(0.31, -0.12, 0.57, 0.02, 0.33, 0.18, -0.21, 0.29, 0.11, 0.47)
test <- t.test(d); flips <- as.matrix(expand.grid(rep(list(c(-1, 1)), length(d))))
keep("paired_t", list(d = d), list(t = unname(test$statistic), p = test$p.value, ci = test$conf.int[1:2], df = unname(test$parameter),
     sign_flip = mean(abs(flips %*% d) >= abs(sum(d)) - 1e-12)))
for (arms in list(list(c(0.271, 0.283, 0.262), c(0.301, 0.322, 0.296)), list(c(0.5, 0.52), c(0.49, 0.55, 0.61, 0.47, 0.5)))) {
  test <- t.test(arms[[2]], arms[[1]])
  keep("welch", list(a = arms[[1]], b = arms[[2]]),
       list(t = unname(test$statistic), p = test$p.value, ci = test$conf.int[1:2], df = unname(test$parameter)))
}
# ---- TOST and non-inferiority by t (margin 0.1 on the second vector of differences)
keep("tost_t", list(d = d, margin = 0.3),
     list(noninferior = t.test(d, mu = -0.3, alternative = "greater")$p.value,
          equivalence = max(t.test(d, mu = -0.3, alternative = "greater")$p.value, t.test(d, mu = 0.3, alternative = "less")$p.value),
          ci90 = t.test(d, conf.level = 0.9)$conf.int[1:2]))

# ---- cluster-robust t of a mean: intercept-only regression, CR1 by its matrix formula
cluster <- c(1, 1, 1, 2, 2, 3, 3, 3, 3, 4)
e <- d - mean(d); g <- length(unique(cluster))
se <- sqrt(g / (g - 1) * sum(tapply(e, cluster, sum)^2)) / length(d)
keep("cluster_t", list(d = d, cluster = cluster),
     list(se = se, p = 2 * pt(-abs(mean(d) / se), g - 1), ci = mean(d) + c(-1, 1) * qt(0.975, g - 1) * se))

# ---- families
p <- c(0.01, 0.04, 0.03, 0.005, 0.2, 0.04, 0.9)
keep("adjust", list(p = p), list(holm = p.adjust(p, "holm"), bh = p.adjust(p, "BH")))

# ---- power: seeds per arm by power.t.test; sample size for the paired difference by the normal formula
keep("seeds", list(effect = 0.02, sd = 0.014), list(
  unpaired = ceiling(power.t.test(delta = 0.02, sd = 0.014, power = 0.8)$n),
  paired = ceiling(power.t.test(delta = 0.02, sd = 0.014, power = 0.8, type = "paired")$n)))
keep("mde", list(discordant = 0.2, n = 1319), list(effect = (qnorm(0.975) + qnorm(0.8)) * sqrt(0.2 / 1319),
  questions = ceiling((qnorm(0.975) + qnorm(0.8))^2 * (0.1 + 0.15 / 8 + 0.12 / 4) / 0.03^2)))

cat('{"made_by": "Rscript tests/reports/stats/r_reference.R, ', R.version.string, '", "records": [\n', sep = "")
cat(paste(records, collapse = ",\n"))
cat("\n]}\n")
