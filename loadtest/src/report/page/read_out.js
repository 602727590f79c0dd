// Reads values out of the plot under the pointer; plots over time show the same moment.
(() => {
  'use strict'
  const measures = { linear: (value) => value, logarithmic: Math.log10, nines: (value) => -Math.log10(1 - Math.min(value, 99.999999) / 100) }
  const plots = JSON.parse(document.getElementById('plots').textContent)

  const drawings = [...document.querySelectorAll('svg[data-plot]')].map((svg) => {
    const { plot, kind, low, high, left, width } = svg.dataset
    const measure = measures[kind]
    const [first, last] = [measure(Number(low)), measure(Number(high))]
    const readOut = document.createElement('div')
    readOut.className = 'read-out'
    readOut.hidden = true
    svg.after(readOut)
    return {
      svg,
      readOut,
      plot: plots[plot],
      left: Number(left),
      width: Number(width),
      cursor: svg.querySelector('.cursor'),
      place: (along) => (measure(along) - first) / (last - first),
    }
  })

  const number = (value) => {
    const size = Math.abs(value)
    const digits = size >= 100 || value === 0 ? 0 : size >= 10 ? 1 : size >= 0.1 ? 2 : 3
    return value.toLocaleString('en', { minimumFractionDigits: digits, maximumFractionDigits: digits })
  }

  const told = ({ along }, value) => {
    if (along === 'percentile') return `${Number(value.toPrecision(7))} %`
    if (along !== 'time') return `${value.toLocaleString('en')} ${along}`
    if (value < 120) return `${value.toFixed(2)} s`
    return `${Math.floor(value / 60)}:${(value % 60).toFixed(1).padStart(4, '0')}`
  }

  /** The point of a line that is nearest to a place, unless that is far away. */
  const nearest = ({ place }, { points }, at) => {
    let [best, distance] = [null, 0.05]
    for (const point of points) {
      const away = Math.abs(place(point[0]) - at)
      if (away < distance) [best, distance] = [point, away]
    }
    return best
  }

  const point = (drawing, at) => {
    const x = drawing.left + drawing.width * at
    drawing.cursor.setAttribute('x1', x)
    drawing.cursor.setAttribute('x2', x)
    drawing.cursor.classList.add('shown')
  }

  const tell = (drawing, at) => {
    const { plot, readOut, svg, left, width, place } = drawing
    const found = plot.lines.map((line) => nearest(drawing, line, at))
    const one = found.find((point) => point)
    readOut.hidden = !one
    if (!one) return at
    const rows = plot.lines.map((line, number) => ({ line, number, point: found[number] })).filter(({ point }) => point)
    if (plot.stacked) rows.reverse()
    const table = document.createElement('table')
    const row = (name, value, colour) => {
      const cells = table.insertRow()
      if (colour !== undefined) cells.className = `c${colour % 8}`
      cells.insertCell().textContent = name
      const cell = cells.insertCell()
      cell.className = 'number'
      cell.textContent = value
    }
    for (const { line, number: colour, point } of rows) row(line.name, `${number(point[1] / plot.factor)} ${plot.unit}`, colour)
    if (plot.stacked && rows.length > 1) {
      const sum = rows.reduce((sum, { point }) => sum + point[1], 0)
      row('together', `${number(sum / plot.factor)} ${plot.unit}`)
    }
    const head = document.createElement('div')
    head.textContent = told(plot, one[0])
    readOut.replaceChildren(head, table)
    // Beside the pointer, on the side where there is room.
    const scale = svg.clientWidth / svg.viewBox.baseVal.width
    const x = (left + width * place(one[0])) * scale
    const room = svg.clientWidth - x > readOut.offsetWidth + 24
    readOut.style.left = `${Math.max(0, room ? x + 14 : x - 14 - readOut.offsetWidth)}px`
    readOut.style.top = `${svg.offsetTop + 12}px`
    return place(one[0])
  }

  const hide = () => {
    for (const { readOut, cursor } of drawings) {
      readOut.hidden = true
      cursor.classList.remove('shown')
    }
  }

  for (const drawing of drawings) {
    drawing.svg.addEventListener('pointermove', ({ clientX }) => {
      const { svg, left, width, plot } = drawing
      const box = svg.getBoundingClientRect()
      const at = ((clientX - box.left) * (svg.viewBox.baseVal.width / box.width) - left) / width
      hide()
      if (at < -0.02 || at > 1.02) return
      const snapped = tell(drawing, at)
      const together = plot.along === 'time' ? drawings.filter((other) => other.plot.along === 'time') : [drawing]
      for (const other of together) point(other, Math.min(1, Math.max(0, snapped)))
    })
    drawing.svg.addEventListener('pointerleave', hide)
  }
})()
